"""Replay: images of earlier steps among the new ones; the form of pastifra/Continual_Nanodet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from search_spaces.distributions import Choice, IntUniform, Uniform
from search_spaces.growth import LOSS_SCOPE, NEW_ROW_INIT


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayParams:
    """What is kept of earlier steps, and how much of a batch it fills."""

    buffer_size: Annotated[int, IntUniform(0, 1000), "images kept of earlier steps; released: 250"] = 250
    ratio: Annotated[float, Uniform(0.1, 0.7), "share of a batch that is replayed; released: 0.5"] = 0.5
    policy: Annotated[
        str,
        Choice(("half", "per_task", "reservoir", "class_balanced")),
        "what leaves the buffer for the images of a step that ends; released: half",
    ] = "half"
    loss_scope: Annotated[str, LOSS_SCOPE, "class channels that ground truth trains; released: full"] = "full"
    new_row_init: Annotated[str, NEW_ROW_INIT, "rows of new classes"] = "focal_prior"


PRESETS = {"published": ReplayParams()}
