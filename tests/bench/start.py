"""How long a trial takes to its first iteration: in a new process, and in an actor that ran a trial before."""

from __future__ import annotations

import argparse
import json
import os
import time
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from ray import tune
from ray.tune import Callback

from sweeps import runner, work
from sweeps.cluster import connect_ray
from sweeps.spec import SweepSpec, parse_spec
from sweeps.warm_start import Known
from trainables.config import Runtime, TrialConfig
from trainables.tune import first_step_task, tables_task, tune_trial

SPEC = """
name: start
scenario: digits/5+5
detector: gfl_r18_tiny
method: erd
search: {{lambda_cls: declared, alpha_cls: declared}}
training: {{base_epochs: 1, epochs: 1, batch_size: 16}}
trials: {trials}
scheduler: {{name: none}}
compare: []
storage: {folder}
"""


def run(options: list[str]) -> dict[str, float]:
    """`cold_s`, `warm_s`: seconds from the moment that Tune starts a trial to its first iteration."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench start", description=__doc__)
    parser.add_argument("--trials", type=int, default=6, help="one at a time; the first is cold, the others are warm")
    trials = parser.parse_args(options).trials
    with TemporaryDirectory() as folder:
        spec = parse_spec(SPEC.format(trials=trials, folder=folder), "start")
        splits = work.prepared(spec)
        config, runtime, ray = work.base_config(spec, splits), work.runtime(spec, splits), connect_ray()
        print("training a base step of one epoch ...", flush=True)
        ray.get(ray.remote(first_step_task).remote(config, runtime))
        ray.get(ray.remote(tables_task).remote(config, runtime))
        times = _started(spec, config, runtime)
    for number, seconds in enumerate(times):
        print(f"trial {number}, {'warm' if number else 'cold'}: {seconds:.2f} s to its first iteration")
    return {"cold_s": times[0], "warm_s": median(times[1:])}


def _started(spec: SweepSpec, config: TrialConfig, runtime: Runtime) -> list[float]:
    """Seconds to the first iteration of each trial, in one actor."""
    clock, firsts = _Clock(), spec.storage / "first"
    firsts.mkdir()
    spec.folder.mkdir(parents=True)
    runner.tune_trial = partial(_timed_trial, firsts=firsts)
    runner.search(spec, {spec.method: config}, runtime, clock, 1, {}, Known())
    told = {path.stem: json.loads(path.read_text()) for path in firsts.iterdir()}
    assert len({pid for _, pid in told.values()}) == 1, "the trials did not run in one process"
    return [told[trial][0] - began for trial, began in clock.began.items()]


class _Clock(Callback):
    """When Tune started each trial."""

    def __init__(self) -> None:
        self.began: dict[str, float] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.began[trial.trial_id] = time.time()


def _timed_trial(chosen: dict[str, Any], firsts: Path, **given: Any) -> None:
    """`tune_trial`, which writes down when its first iteration begins, and in which process."""
    from trainables.incremental import IncrementalDetector

    path = firsts / f"{tune.get_context().get_trial_id()}.json"
    whole = IncrementalDetector.train_step

    def first(self: Any, *arguments: Any, **named: Any) -> Any:
        path.write_text(json.dumps([time.time(), os.getpid()]))
        IncrementalDetector.train_step = whole
        return whole(self, *arguments, **named)

    IncrementalDetector.train_step = first
    tune_trial(chosen, **given)
