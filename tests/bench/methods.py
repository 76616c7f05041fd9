"""What an iteration of each method costs, against fine-tuning's: as a trial has it, with its tables."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tests.bench.digits import base_step
from trainables import training
from trainables.catalog import METHODS
from trainables.config import Runtime, TrialConfig
from trainables.step import StepResult
from trainables.table_plans import response_plan

BASELINE = "finetune"
COMPARED = (BASELINE, "replay", "pseudo_label", "lwf", "sid", "erd", "ld", "replay-sid")


def run(options: list[str]) -> dict[str, float]:
    """By method, the median over turns of its seconds an iteration over those of fine-tuning in the same turn."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench methods", description=__doc__)
    parser.add_argument("--turns", type=int, default=3, help="each an epoch of every method")
    turns = parser.parse_args(options).turns
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config, runtime, base = base_step(folder)
        configs = {name: _defaults(config, name) for name in COMPARED}
        for own in configs.values():
            training.build_step_tables(own, runtime, 1, base.weights)
        times: dict[str, list[float]] = {name: [] for name in COMPARED}
        for turn in range(turns):
            for name, own in configs.items():
                times[name].append(_seconds(own, runtime, base, folder / f"{name}-{turn}.pt"))
            told = ", ".join(f"{name} {1000 * own[-1]:.0f}" for name, own in times.items())
            print(f"turn {turn + 1}, ms an iteration: {told}", flush=True)
        tables = {name: response_plan(own, runtime, 1).kept for name, own in configs.items()}
    ratios = {name: median(a / b for a, b in zip(own, times[BASELINE], strict=True)) for name, own in times.items()}
    for name, ratio in ratios.items():
        teacher = "its teacher from a table" if tables[name] else "its teacher live"
        print(f"{name}: {ratio:.2f} of {BASELINE}{f', {teacher}' if METHODS[name].taught else ''}")
    return ratios


def _defaults(config: TrialConfig, method: str) -> TrialConfig:
    preset = METHODS[method].presets[METHODS[method].default_preset]
    return replace(config, method=method, params=asdict(preset))


def _seconds(config: TrialConfig, runtime: Runtime, base: StepResult, state: Path) -> float:
    """Of an iteration of the first increment, over an epoch."""
    _, facts = training.train_step(config, runtime, 1, base.weights, state, None)
    return facts["time_train_s"] / facts["iters"]
