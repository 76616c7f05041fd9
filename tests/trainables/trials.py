"""The configuration of a trial, which tests and benchmarks change."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from trainables.catalog import DETECTORS, METHODS
from trainables.config import TrialConfig
from trainables.scenarios import named_scenario


def trial_config(
    data: str = "0123456789abcdef", method: str = "erd", detector: str = "gfl_r18_tiny", **changes: Any
) -> TrialConfig:
    """A method's default preset on `digits/5+5`, one epoch a step in batches of 8 images.

    Args:
        data: digest of the training annotations.
        changes: of any other field.
    """
    preset = METHODS[method].presets[METHODS[method].default_preset]
    known = {"scenario": named_scenario("digits/5+5"), "base_epochs": 1, "epochs": 1, "batch_size": 8}
    known |= {"params": asdict(preset), "optim": asdict(DETECTORS[detector].optim())}
    return TrialConfig(data=data, method=method, detector=detector, **(known | changes))
