"""`cluster`: a search on a simulated cluster, through the real runner, searcher, tracker and store.

Eight nodes of this machine pretend to have four GPUs each; an epoch of a trial is slept (`tests.bench.reports`), all
else is real: with epochs of 6 s instead of 10 minutes the driver is a hundred times busier. `busy_share` is the share
of the slots that sleep an epoch, from the moment at which all are at work to the start of the last trial: before it 32
processes start on this one machine, after it there is nothing left to run. Beside it the same over the whole search.
`rss_growth_mb` is the growth of the driver's memory from the end of the first tenth of its samples to their end,
`gpus_at_limit` how many GPUs, each with a report every 10 minutes, would keep one driver busy all the time: by its CPU
seconds, or by the seconds in which its loop does not wait, whichever are more.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich.console import Console
from rich.table import Table

from sweeps import runner, work
from sweeps.cluster import connect_ray
from sweeps.preflight import slots
from sweeps.spec import CONFIGS, SweepSpec, load_spec
from sweeps.spec_file import Resources
from sweeps.warm_start import Known
from tests.bench.records import faults
from tests.bench.reports import SLEPT, sleep_trial
from tests.bench.scale import growth_mb, memory, recorded, unread_splits
from tests.smoke.nodes import Cluster
from trainables.journal import read
from trainables.store import Store

NODES, GPUS = 8, 4
SLOTS = NODES * GPUS
REPORT_EVERY_S = 600.0  # of a GPU at work


@dataclass(frozen=True)
class Cost:
    """What a search cost its driver: seconds since 1970 of its begin and end, seconds of CPU and of waiting, MB."""

    began: float
    ended: float
    cpu_s: float
    waited_s: float
    growth_mb: float

    @property
    def busy_s(self) -> float:
        """Of CPU or of its loop, whichever are more."""
        return max(self.cpu_s, self.ended - self.began - self.waited_s)


def run(options: list[str]) -> dict[str, float]:
    """How busy the slots were, whether the records are complete, and when the driver would be the limit."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench cluster", description=__doc__)
    parser.add_argument("--trials", type=int, default=1000, help=f"more than the {SLOTS} slots")
    parser.add_argument("--epoch-s", type=float, default=6.0, help="mean; five of them are a trial")
    given = parser.parse_args(options)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, _cluster(Path(folder)):
        spec = replace(
            load_spec(CONFIGS / "erd_digits.yaml"), sampler="tpe", trials=given.trials,
            resources=Resources(cpu=1, gpu=1), storage=Path(folder), store=Path(folder, "store"), tracking_uri=f"sqlite:///{folder}/mlflow.db",
        )  # fmt: skip
        with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
            cost = fresh.submit(_searched, spec, given.epoch_s).result()
        written = time.time()
        trials = [read(file) for file in (spec.folder / "trials").glob("*/events.jsonl")]
        problems = faults(spec, Path(folder, "mlflow.db"))
    runs = [(_first_sleep(events), _seconds(events[-1])) for events in trials]
    full, last = _all_at_work(runs), max(began for began, _ in runs)
    sleeps = [(_seconds(event) - event[SLEPT], _seconds(event)) for events in trials for event in events]
    per_report = cost.busy_s / len(sleeps)
    busy = _busy_share(sleeps, full, last)
    print(*problems[:10], sep="\n", end="\n" if problems else "")
    rows = {
        "slots that sleep, all at work to the last trial's start": f"{100 * busy:.1f} %",
        "slots that sleep, of the whole search": f"{100 * _busy_share(sleeps, cost.began, cost.ended):.1f} %",
        "until all slots are at work": f"{full - cost.began:.0f} s",
        "search": f"{cost.ended - cost.began:.0f} s",
        "records, after the search": f"{written - cost.ended:.0f} s",
        "driver, CPU for each report": f"{1000 * cost.cpu_s / len(sleeps):.1f} ms",
        "driver, at work for each report": f"{1000 * per_report:.1f} ms",
        "driver, growth of its memory": f"{cost.growth_mb:.0f} MB",
        "records that are wrong": str(len(problems)),
    }
    _show(f"{len(trials)} trials, {len(sleeps)} reports, {SLOTS} GPUs of {NODES} nodes", rows)
    return {
        "busy_share": busy,
        "rss_growth_mb": cost.growth_mb,
        "records_complete": float(not problems),
        "gpus_at_limit": REPORT_EVERY_S / per_report,
    }


@contextmanager
def _cluster(folder: Path) -> Iterator[None]:
    """The nodes, known to processes that start meanwhile as to `sweeps run`."""
    nodes = Cluster(folder / "ray", head_cpus=GPUS, nodes=NODES, cpus=GPUS, gpus=GPUS)
    try:
        with patch.dict(os.environ, {**nodes.environment, "RAY_ADDRESS": nodes.address}):
            yield
    finally:
        nodes.end()


def _searched(spec: SweepSpec, epoch_s: float) -> Cost:
    """The cost of a search whose trials sleep; when it returns, all records are written."""
    assert slots(spec, connect_ray()) == SLOTS
    sleeping, runtime = partial(sleep_trial, epoch_s=epoch_s), work.runtime(spec, unread_splits())
    import_module("mlflow")  # Tune does it inside `fit`, once a process, where it is given a callback
    with recorded(spec, SLOTS) as recorder, patch.object(runner, "tune_trial", sleeping):
        with memory() as rss_mb, _waits() as waits:
            began, cpu = time.time(), time.process_time()
            runner.search(spec, recorder.bases, runtime, recorder, SLOTS, {}, Known())
            ended, cpu = time.time(), time.process_time() - cpu
        runner.finish(spec, recorder.tracker, recorder, Store(spec.store), recorder.display)
    return Cost(began, ended, cpu, waits[0], growth_mb(rss_mb))


@contextmanager
def _waits() -> Iterator[list[float]]:
    """In its only item, how many seconds this process has waited for Ray."""
    import ray

    waits, wait = [0.0], ray.wait

    def timed(*args: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return wait(*args, **options)
        finally:
            waits[0] += time.perf_counter() - began

    with patch.object(ray, "wait", timed):
        yield waits


def _first_sleep(events: Sequence[Mapping[str, Any]]) -> float:
    """When a trial is at work: after its first report, with which a new process loads more packages of Ray's."""
    return next(_seconds(event) - event[SLEPT] for event in events if event[SLEPT])


def _seconds(event: Mapping[str, Any]) -> float:
    return event["timestamp_ms"] / 1000


def _all_at_work(runs: Sequence[tuple[float, float]]) -> float:
    """The first moment at which every slot has a trial; the first trial's start if there is none."""
    changes = sorted([(began, 1) for began, _ in runs] + [(ended, -1) for _, ended in runs])
    at_work = itertools.accumulate(change for _, change in changes)
    full = (moment for (moment, _), number in zip(changes, at_work, strict=True) if number == SLOTS)
    return next(full, changes[0][0])


def _busy_share(sleeps: Sequence[tuple[float, float]], since: float, until: float) -> float:
    """Of the slots' time from one moment to another, the share that was slept."""
    slept = sum(max(0.0, min(ended, until) - max(began, since)) for began, ended in sleeps)
    return slept / (SLOTS * (until - since))


def _show(title: str, rows: Mapping[str, str]) -> None:
    table = Table(title=title, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for row in rows.items():
        table.add_row(*row)
    Console().print(table)
