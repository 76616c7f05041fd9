"""Latent distillation: Pasti et al., ECCV workshops 2024, arXiv 2409.01872; repository pastifra/Continual_Nanodet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from search_spaces.distributions import Choice, LogUniform, Uniform
from search_spaces.growth import LOSS_SCOPE, NEW_ROW_INIT


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentParams:
    """Defaults are the published weights: SID's terms behind a frozen backbone, which student and teacher share."""

    w_cls: Annotated[
        float, LogUniform(0.01, 100.0, zero=True), "weight of the squared difference of old class logits; released: 1"
    ] = 1.0
    w_feat: Annotated[
        float, LogUniform(0.01, 100.0, zero=True), "weight of the squared difference of features; released: 1"
    ] = 1.0
    feat: Annotated[str, Choice(("towers", "fpn", "both")), "which features; released: towers"] = "towers"
    feat_reduce: Annotated[str, Choice(("sum", "mean")), "over the levels; released: sum"] = "sum"
    frozen: Annotated[
        str, Choice(("backbone", "but_last_stage", "none")), "what keeps its weights and statistics; released: backbone"
    ] = "backbone"
    negative_weight: Annotated[
        float, Uniform(0.0, 1.0), "background in the class loss of GFL's kind; the released distillation head: 0"
    ] = 1.0
    loss_scope: Annotated[str, LOSS_SCOPE, "class channels that ground truth trains; released: full"] = "full"
    new_row_init: Annotated[str, NEW_ROW_INIT, "rows of new classes"] = "focal_prior"

    @property
    def features(self) -> tuple[str, ...]:
        """What it listens to beside a teacher's logits, everywhere."""
        towers, fpn = ("cls_tower", "reg_tower"), ("fpn",)
        return {"towers": towers, "fpn": fpn, "both": towers + fpn}[self.feat]


PRESETS = {"published": LatentParams()}
