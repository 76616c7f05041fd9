"""A metric of the AP matrix."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def worst_step(step_ap_TK: npt.NDArray[np.float64]) -> float:
    """AP of the step whose classes the detector now finds worst; nan if it finds none.

    Args:
        step_ap_TK: AP of step k's classes after step t, as fractions; nan where k > t, and without ground truth.
    """
    return float(np.fmin.reduce(step_ap_TK[-1]))
