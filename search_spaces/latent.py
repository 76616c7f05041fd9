"""Latent distillation: Pasti et al., ECCV workshops 2024, arXiv 2409.01872; repository pastifra/Continual_Nanodet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from search_spaces.distributions import Choice, Uniform
from search_spaces.params import When
from search_spaces.replay import ReplayParams
from search_spaces.sid import SIDParams


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentParams(SIDParams):
    """Defaults are the published weights: SID's terms behind a frozen backbone, which student and teacher share."""

    frozen: Annotated[
        str, Choice(("backbone", "but_last_stage", "none")), "what keeps its weights and statistics; released: backbone"
    ] = "backbone"
    backbone_bn: Annotated[
        str,
        Choice(("eval", "train")),
        "statistics of a frozen backbone stay, or follow the batches, which are then computed twice; released: train",
        When("frozen", ("backbone", "but_last_stage")),
    ] = "eval"
    negative_weight: Annotated[
        float, Uniform(0.0, 1.0), "background in the class loss of GFL's kind; the released distillation head: 0"
    ] = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentReplayParams(ReplayParams):
    """Replay of what a frozen backbone says of an image, not of the image."""

    dtype: Annotated[
        str, Choice(("float32", "float16", "int8")), "of what is kept; int8 has a scale for each image and channel"
    ] = "int8"

    @property
    def frozen(self) -> str:
        """What keeps its weights and statistics."""
        return "backbone"


PRESETS = {"published": LatentParams()}
REPLAY_PRESETS = {"published": LatentReplayParams()}
