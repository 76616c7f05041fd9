"""Naive fine-tuning: the baseline of every paper; shows forgetting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from search_spaces.distributions import Choice
from search_spaces.growth import NEW_ROW_INIT


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneParams:
    """Training goes on with the data of the step alone."""

    loss_scope: Annotated[
        str,
        Choice(("full", "new_slice")),
        "full: old classes are negatives; new_slice: only new channels train (Hi-FT/ERD)",
    ] = "full"
    new_row_init: Annotated[str, NEW_ROW_INIT, "rows of new classes"] = "focal_prior"


PRESETS = {"default": FinetuneParams(), "new_slice": FinetuneParams(loss_scope="new_slice")}
