"""Learning without forgetting (LwF): Li, Hoiem, arXiv 1606.09282; for detectors: pastifra/Continual_Nanodet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from search_spaces.distributions import BOOL, LogUniform
from search_spaces.growth import LOSS_SCOPE, NEW_ROW_INIT


@dataclass(frozen=True, kw_only=True, slots=True)
class LwFParams:
    """Defaults are the published weights; the mean of squared raw outputs is small, so the range is wide."""

    w_out: Annotated[
        float, LogUniform(0.01, 100.0, zero=True), "weight of the squared difference of raw outputs; released: 1"
    ] = 1.0
    reg_term: Annotated[bool, BOOL, "box outputs are kept as well; released: True"] = True
    loss_scope: Annotated[str, LOSS_SCOPE, "class channels that ground truth trains; released: full"] = "full"
    new_row_init: Annotated[str, NEW_ROW_INIT, "rows of new classes"] = "focal_prior"


PRESETS = {"published": LwFParams()}
