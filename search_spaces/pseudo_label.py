"""Pseudo-labels: the teacher's detections stand in for the missing boxes of old classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from search_spaces.distributions import IntUniform, Uniform
from search_spaces.growth import LOSS_SCOPE, NEW_ROW_INIT


@dataclass(frozen=True, kw_only=True, slots=True)
class PseudoLabelParams:
    """Which detections count, and how much."""

    score_thr: Annotated[float, Uniform(0.2, 0.7), "smallest score of a detection that counts; released: 0.3"] = 0.3
    dedup_iou: Annotated[
        float, Uniform(0.5, 1.0), "a detection goes above this IoU with a real box of its class; 1: none goes, released"
    ] = 0.7
    max_pseudo: Annotated[int, IntUniform(20, 100), "most of an image, best first"] = 100
    pseudo_weight: Annotated[float, Uniform(0.25, 1.0), "of their class and box losses; released: 1"] = 1.0
    loss_scope: Annotated[str, LOSS_SCOPE, "class channels that ground truth trains; released: full"] = "full"
    new_row_init: Annotated[str, NEW_ROW_INIT, "rows of new classes"] = "focal_prior"


PRESETS = {"default": PseudoLabelParams()}
