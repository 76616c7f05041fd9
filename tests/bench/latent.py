"""An iteration of latent distillation against one of SID: NanoDet-Plus-m on 320 px, on one CPU thread."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tests.trainables.trials import trial_config
from trainables import training
from trainables.catalog import DETECTORS
from trainables.config import Runtime, TrialConfig
from trainables.datasets import DataConfig, prepare
from trainables.environment import prepare_process
from trainables.step import run_step

DETECTOR, NUM_IMAGES = "nanodet_plus_m", 96


def run(options: list[str]) -> dict[str, float]:
    """`ratio_table`: latent distillation over SID, both with all their tables; `ratio_live`: both without any."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench latent", description=__doc__)
    parser.add_argument("--turns", type=int, default=3, help="each an epoch of every kind")
    turns = parser.parse_args(options).turns
    entry = DETECTORS[DETECTOR]
    DETECTORS[DETECTOR] = replace(entry, recipe=entry.recipe.still)  # a table needs images that come again
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        splits = prepare(DataConfig(kind="digits", sizes=(NUM_IMAGES, 4, 4)), folder / "data")
        prepare_process(threads=1)
        runtimes = {
            "table": Runtime(splits=splits, store=folder / "store"),
            "live": Runtime(splits=splits, store=folder / "store", table_budget_gb=0.0),
        }
        configs = {
            method: trial_config(splits.train.digest, method, DETECTOR, batch_size=16) for method in ("sid", "latent")
        }
        base = run_step(configs["sid"], runtimes["live"], 0, None).weights
        for config in configs.values():
            training.build_step_tables(config, runtimes["table"], 1, base)
        times: dict[tuple[str, str], list[float]] = {}
        for turn in range(turns):
            for kind, runtime in runtimes.items():
                for method, config in configs.items():
                    state = folder / f"{method}-{kind}-{turn}.pt"
                    times.setdefault((method, kind), []).append(_seconds(config, runtime, base, state))
            told = ", ".join(f"{method} {kind} {1000 * own[-1]:.0f}" for (method, kind), own in times.items())
            print(f"turn {turn + 1}, ms an iteration: {told}", flush=True)
    pairs = {kind: zip(times["latent", kind], times["sid", kind], strict=True) for kind in runtimes}
    return {f"ratio_{kind}": median(a / b for a, b in own) for kind, own in pairs.items()}


def _seconds(config: TrialConfig, runtime: Runtime, base: Path, state: Path) -> float:
    """Of an iteration of the first increment, over an epoch."""
    _, facts = training.train_step(config, runtime, 1, base, state, None)
    return facts["time_train_s"] / facts["iters"]
