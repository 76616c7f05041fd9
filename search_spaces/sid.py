"""SID (feature and logit form): Peng et al., arXiv 2012.15439, as in pastifra/Continual_Nanodet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from search_spaces.distributions import Choice, LogUniform
from search_spaces.growth import LOSS_SCOPE, NEW_ROW_INIT


@dataclass(frozen=True, kw_only=True, slots=True)
class SIDParams:
    """Defaults are the published weights. The released code calls them alpha (features) and beta (classes)."""

    w_cls: Annotated[
        float, LogUniform(0.01, 100.0, zero=True), "weight of the squared difference of old class logits; released: 1"
    ] = 1.0
    w_feat: Annotated[
        float, LogUniform(0.01, 100.0, zero=True), "weight of the squared difference of features; released: 1"
    ] = 1.0
    feat: Annotated[str, Choice(("towers", "fpn", "both")), "which features; released: towers"] = "towers"
    feat_reduce: Annotated[str, Choice(("sum", "mean")), "over the levels; released: sum"] = "sum"
    loss_scope: Annotated[str, LOSS_SCOPE, "class channels that ground truth trains; released: full"] = "full"
    new_row_init: Annotated[str, NEW_ROW_INIT, "rows of new classes"] = "focal_prior"

    @property
    def features(self) -> tuple[str, ...]:
        """What it listens to beside a teacher's logits, everywhere."""
        towers, fpn = ("cls_tower", "reg_tower"), ("fpn",)
        return {"towers": towers, "fpn": fpn, "both": towers + fpn}[self.feat]


PRESETS = {"published": SIDParams()}
