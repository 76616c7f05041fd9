"""What the benchmarks on digit scenes share: a scenario of two steps, its data, a trained base step."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from search_spaces.erd import PRESETS
from search_spaces.optim import TinyOptimParams
from trainables.config import Runtime, TrialConfig
from trainables.datasets import DataConfig, Splits, prepare
from trainables.environment import prepare_process
from trainables.scenarios import named_scenario
from trainables.step import StepResult, run_step


def scenes(folder: Path) -> Splits:
    """The scenes of `sweeps/configs/erd_digits.yaml`."""
    return prepare(DataConfig(kind="digits"), folder / "data")


def erd_config(splits: Splits, base_epochs: int, epochs: int) -> TrialConfig:
    """Trial 0 of `erd_digits.yaml` on a budget of epochs."""
    return TrialConfig(
        scenario=named_scenario("digits/5+5"),
        data=splits.train.digest,
        detector="gfl_r18_tiny",
        method="erd",
        params=asdict(PRESETS["fixed"]),
        optim=asdict(TinyOptimParams()),
        base_epochs=base_epochs,
        epochs=epochs,
        batch_size=16,
    )


def base_step(folder: Path, epochs: int = 2, **changes: Any) -> tuple[TrialConfig, Runtime, StepResult]:
    """A configuration, where it runs, and its base step, trained for `epochs`: the teacher of the second step.

    Args:
        changes: of the configuration.
    """
    splits = scenes(folder)
    config = replace(erd_config(splits, epochs, 1), **changes)
    runtime = Runtime(splits=splits, store=folder / "store")
    prepare_process(threads=1)
    print(f"training a base step of {epochs} epochs ...", flush=True)
    return config, runtime, run_step(config, runtime, 0, None)
