"""What the benchmarks on digit scenes share: a scenario of two steps, its data, a trained base step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mmdet.models import BaseDetector

from tests.trainables.trials import trial_config
from trainables.config import Runtime, TrialConfig
from trainables.datasets import DataConfig, Splits, prepare
from trainables.environment import prepare_process
from trainables.step import StepResult, run_step
from trainables.step_tables import StepTables
from trainables.training import build_model


def scenes(folder: Path) -> Splits:
    """The scenes of `sweeps/configs/erd_digits.yaml`."""
    return prepare(DataConfig(kind="digits"), folder / "data")


def base_step(folder: Path, epochs: int = 2, **changes: Any) -> tuple[TrialConfig, Runtime, StepResult]:
    """A configuration, where it runs, and its base step, trained for `epochs`: the teacher of the second step.

    Args:
        changes: of the configuration.
    """
    splits = scenes(folder)
    config = trial_config(splits.train.digest, **({"base_epochs": epochs, "batch_size": 16} | changes))
    runtime = Runtime(splits=splits, store=folder / "store")
    prepare_process(threads=1)
    print(f"training a base step of {epochs} epochs ...", flush=True)
    return config, runtime, run_step(config, runtime, 0, None)


def live_teacher(config: TrialConfig, runtime: Runtime, base: StepResult) -> BaseDetector:
    """The teacher of the second step, as a trial has it that has no table of its responses."""
    without = replace(runtime, table_budget_gb=0.0)
    with StepTables(config, without, 1) as tables:
        teacher = build_model(config, 1, base.weights, tables).teacher
    assert teacher is not None
    return teacher
