"""`tracking`: what a record costs the driver while MLflow is well, slow, fails, says nothing, or refuses connections.

Events as large as real ones go through the real recorder and tracker, some a second, towards a real MLflow server
behind a proxy (`tests.bench.proxy`): slow is 2 s a request, failing an HTTP 500. `p99_ms` and `max_ms` are those of the
worst case, of the time that Tune's loop spends in the recorder for one event. The end of a sweep finds MLflow well
again after it was slow or silent; where it fails or refuses, the records are written later, by what `sweeps sync` runs.
`records_complete` says whether each was there then once, in order.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ray.tune.experiment import Trial
from rich.console import Console
from rich.table import Table

from sweeps.recorder import Recorder, now_ms
from sweeps.spec import CONFIGS, SweepSpec, load_spec
from sweeps.tracking import sync_records
from sweeps.writer import waiting
from tests.bench.proxy import BEHAVIOURS, Proxy
from tests.bench.records import faults
from tests.bench.reports import epochs_of, event_of
from tests.bench.scale import recorded
from tests.smoke.servers import NICENESS, free_port, mlflow_server
from trainables.journal import append
from trainables.tune import EVENT, EXCESSES, OBJECTIVE, PROGRESS, VALUES, events_file

UNTIL_THE_END = ("failing", "refusing")  # and longer; otherwise MLflow is well before the sweep ends


@dataclass(frozen=True)
class Case:
    """A sweep's milliseconds for each event; records that waited at its end; seconds that its end and a sync took."""

    times_ms: list[float]
    waiting: int
    end_s: float
    sync_s: float
    problems: list[str]


def run(options: list[str]) -> dict[str, float]:
    """Milliseconds that an event holds the driver up, and whether every record arrived."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench tracking", description=__doc__)
    parser.add_argument("--trials", type=int, default=12, help="in each case, of eight events each")
    parser.add_argument("--rate", type=float, default=8.0, help="events a second")
    given = parser.parse_args(options)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, _proxy(Path(folder)) as proxy:
        spec = replace(load_spec(CONFIGS / "erd_digits.yaml"), trials=given.trials)
        spec = replace(spec, storage=Path(folder), store=Path(folder, "store"), tracking_uri=proxy.uri)
        cases = {name: _case(replace(spec, name=name), proxy, given.rate) for name in BEHAVIOURS}
    _show(cases)
    return {
        "p99_ms": max(float(np.percentile(case.times_ms, 99)) for case in cases.values()),
        "max_ms": max(max(case.times_ms) for case in cases.values()),
        "records_complete": float(not any(case.problems for case in cases.values())),
    }


@contextmanager
def _proxy(folder: Path) -> Iterator[Proxy]:
    """Before a server whose database is `mlflow.db`."""
    port = free_port()
    with mlflow_server(folder, port, f"sqlite:///{folder}/mlflow.db", NICENESS):
        proxy = Proxy(port)
        try:
            yield proxy
        finally:
            proxy.end()


def _case(spec: SweepSpec, proxy: Proxy, rate: float) -> Case:
    """A sweep that finds MLflow well, and then as its name says."""
    journal = spec.folder / "records.jsonl"
    proxy.be("well")
    with recorded(spec, at_once=1) as recorder:
        proxy.be(spec.name)
        times_ms = _fed(spec, recorder, rate)
        left = waiting(journal)
        if spec.name not in UNTIL_THE_END:
            proxy.be("well")
        began = time.perf_counter()
        recorder.tracker.end_sweep("finished", {}, now_ms())
    ended = time.perf_counter()
    proxy.be("well")
    if waiting(journal):
        sync_records(spec)
    synced = time.perf_counter()
    return Case(times_ms, left, ended - began, synced - ended, faults(spec, spec.storage / "mlflow.db"))


def _fed(spec: SweepSpec, recorder: Recorder, rate: float) -> list[float]:
    """Milliseconds that the recorder took for each event of trials one after another."""
    config, value, trials, times_ms = recorder.bases[spec.method], 0.5, [], []

    def tell(listen: Callable[..., None], **more: Any) -> None:
        time.sleep(1 / rate)
        began = time.perf_counter()
        listen(0, trials, trials[-1], **more)
        times_ms.append(1000 * (time.perf_counter() - began))

    for _ in range(spec.trials):
        trials.append(trial := Trial(spec.name, config={}, stub=True))
        tell(recorder.on_trial_start)
        for number, (step, epoch) in enumerate(epochs_of(config)):
            event = event_of(config, step, epoch, value)
            append(events_file(spec.folder / "trials", trial.trial_id), event)
            told = {OBJECTIVE: value, VALUES: [value], EXCESSES: [], PROGRESS: event["progress"], EVENT: number}
            tell(recorder.on_trial_result, result=told)
            trial.update_last_result(told)
        trial.set_status(Trial.TERMINATED)
        tell(recorder.on_trial_complete)
    recorder.on_experiment_end(trials)
    return times_ms


def _show(cases: dict[str, Case]) -> None:
    table = Table(title="while MLflow is ...: ms of an event in the driver's loop")
    for column in ("", "median", "p99", "max", "records that wait", "end, s", "sync, s", "wrong"):
        table.add_column(column, justify="right")
    for name, case in cases.items():
        times = [f"{float(np.percentile(case.times_ms, share)):.2f}" for share in (50, 99, 100)]
        after = [str(case.waiting), f"{case.end_s:.0f}", f"{case.sync_s:.0f}", str(len(case.problems))]
        table.add_row(name, *times, *after)
        print(*case.problems[:3], sep="\n", end="\n" if case.problems else "")
    Console().print(table)
