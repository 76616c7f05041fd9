"""What a sweep tells its records of a trial of two steps."""

from __future__ import annotations

import math

from search_spaces.distributions import Scalar

T0 = 1_700_000_000_000  # ms since 1970
SCOPE: dict[str, Scalar] = {"scenario": "digits/5+5", "detector": "gfl_r18", "method": "erd"}
PARAMS: dict[str, Scalar] = {"erd/lambda_cls": 1.0, "optim/lr_scale": 0.5, "seed": 0, "config_id": "0123"}
METRICS = {"ap_all": 0.4, "ap_old": math.nan, "loss_cls": 0.7}
TABLE: list[dict[str, Scalar]] = [
    {"class": "car", "step": 1, "ap": 0.4, "ap_small": math.nan},
    {"class": "bus", "step": 2, "ap": 0.5, "ap_small": 0.1},
]
MATRIX = {"classes": ["car", "bus"], "ap": [[0.4, math.nan], [0.3, 0.5]]}
