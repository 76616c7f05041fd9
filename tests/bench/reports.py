"""What trials report that train nothing, as large as what real ones do. Loads neither torch nor what drivers need."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from trainables.config import Runtime, TrialConfig
from trainables.metrics import KINDS
from trainables.objectives import Aim
from trainables.scenarios import Scenario
from trainables.store import Store
from trainables.tune import Reporter, events_file, with_parameters

METRICS = ("ap_all", "ap_old", "ap_new", "ap50_all", "ap75_all", "hmean", "forgetting", "omega", "gap_all", "rel_gap")
LOSSES = ("loss", "loss_cls", "loss_bbox", "loss_dfl")
FACTS = ("time_s", "time_saved_s", "images", "peak_memory_mb", *LOSSES)
SLEPT = "slept_s"
SPREAD = 0.3  # of what is slept around its mean, so that trials do not end in lockstep


def value_of(chosen: Mapping[str, Any]) -> float:
    """Some smooth objective, between 0 and 1."""
    return float(1 / (1 + chosen["erd"]["lambda_cls"] + abs(chosen["erd"]["alpha_cls"] - 2)))


def epochs_of(config: TrialConfig) -> Iterator[tuple[int, int]]:
    """Step and epoch of each event of a trial that reports after every epoch; of the base step, its end."""
    for step in range(len(config.scenario.steps)):
        for epoch in range(1 if step >= config.first_step else config.epochs, config.epochs + 1):
            yield step, epoch


def event_of(config: TrialConfig, step: int, epoch: int, value: float) -> dict[str, Any]:
    """The event after an epoch of a step, as `trainables.trial` makes it; the last one ends the step."""
    event = {
        "progress": config.progress_at(step, epoch),
        "step": step,
        "first_step": config.first_step,
        "timestamp_ms": time.time_ns() // 10**6,
    }
    if epoch < config.epochs:
        return event | {"metrics": dict.fromkeys([f"{name}_mid" for name in METRICS] + [*LOSSES], value)}
    names = config.scenario.class_names
    classes = [{"class": name, "step": 1, **dict.fromkeys(KINDS, value)} for name in names]
    return event | {
        "metrics": dict.fromkeys(METRICS, value),
        "facts": dict.fromkeys(FACTS, value),
        "classes": classes[: len(config.scenario.seen(step))],
        "ap_matrix": {"classes": names, "ap": [[value] * len(names)] * (step + 1)},
    }


def sleep_trial(
    chosen: dict[str, Any],
    bases: Mapping[str, TrialConfig],
    runtime: Runtime,
    aim: Aim,
    folder: Path,
    copied: bool,
    scenarios: Sequence[Scenario],
    epoch_s: float,
) -> None:
    """In place of `trainables.tune.tune_trial`: an epoch of about `epoch_s` is slept; its event tells how long."""
    from ray import tune

    config = with_parameters(bases, chosen)
    Store(runtime.store).get("scale", config.step_identity(0), lambda entry: None)
    reporter = Reporter(events_file(folder, tune.get_context().get_trial_id()), aim, config)
    lengths = Random(config.config_id)
    for step, epoch in epochs_of(config):
        slept = epoch_s * lengths.uniform(1 - SPREAD, 1 + SPREAD) if step >= config.first_step else 0.0
        time.sleep(slept)
        reporter(event_of(config, step, epoch, value_of(chosen)) | {SLEPT: slept})
