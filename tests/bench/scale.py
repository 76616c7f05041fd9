"""`scale`: what a trial costs the driver, against bare Ray Tune with OptunaSearch and no tracking.

Trials of both sides only report, twice each, two at a time on warm actors; ours find a tiny entry in a store as well,
and report events as large as real ones. The sides run in turn, each in a fresh process and a fresh cluster of 2 cores.
`driver_ratio` is the larger of two ratios: wall time of `fit` for each trial, and CPU seconds of the driver's process.
What the process that writes to MLflow still has to do after `fit` is shown apart. `rss_growth_mb` is how much the
driver's memory grows from the end of the first tenth of its samples to their end.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import psutil
from rich.console import Console
from rich.table import Table

from sweeps.samplers import optuna_distribution
from sweeps.spec import CONFIGS, SweepSpec, load_spec
from sweeps.work import configured
from tests.bench.reports import event_of, value_of
from trainables.config import TrialConfig
from trainables.datasets import Split, Splits
from trainables.objectives import Aim
from trainables.store import Store
from trainables.tune import OBJECTIVE, PROGRESS, Reporter, events_file, with_parameters

if TYPE_CHECKING:
    from sweeps.recorder import Recorder

AT_ONCE = 2
SAMPLE_S = 0.5  # between two looks at the driver's memory
Searching = Callable[[], Any]


@dataclass(frozen=True)
class Cost:
    """What one search took. Seconds are those of one trial on average; memory is the driver's, in MB."""

    wall_s: float
    cpu_s: float
    after_s: float
    rss_mb: tuple[float, ...]

    @property
    def growth_mb(self) -> float:
        """See `growth_mb`."""
        return growth_mb(self.rss_mb)


def run(options: list[str]) -> dict[str, float]:
    """Our driver's time as a multiple of the bare one's, and the growth of its memory."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench scale", description=__doc__)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=1, help="of both sides in turn; medians are reported")
    given = parser.parse_args(options)
    costs: dict[str, list[Cost]] = {side.__name__: [] for side in (bare, ours)}
    for _ in range(given.rounds):
        for side in (bare, ours):
            with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
                costs[side.__name__].append(fresh.submit(cost, side, given.trials).result())
    _show(costs, given.trials)
    ratios = [_middle(costs["ours"], what) / _middle(costs["bare"], what) for what in ("wall_s", "cpu_s")]
    return {"driver_ratio": max(ratios), "rss_growth_mb": _middle(costs["ours"], "growth_mb")}


def cost(side: Callable[[SweepSpec], Any], trials: int) -> Cost:
    """The cost of one search, run in this process."""
    import ray

    import_module("mlflow")  # Tune does it inside `fit`, once a process, where it is given a callback
    with tempfile.TemporaryDirectory() as folder:
        ray.init(num_cpus=AT_ONCE, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        uri = f"sqlite:///{folder}/mlflow.db"
        spec = replace(load_spec(CONFIGS / "erd_digits.yaml"), sampler="tpe", trials=trials)  # OptunaSearch has TPE
        with (
            side(replace(spec, storage=Path(folder), store=Path(folder, "store"), tracking_uri=uri)) as search,
            memory() as rss_mb,
        ):
            wall, cpu = time.perf_counter(), time.process_time()
            search()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            ended = time.perf_counter()
        after = time.perf_counter() - ended
        ray.shutdown()
    return Cost(wall / trials, cpu / trials, after / trials, tuple(rss_mb))


@contextmanager
def bare(spec: SweepSpec) -> Iterator[Searching]:
    """Ray Tune with OptunaSearch over the same space, as their own documentations set them up."""
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = {name: optuna_distribution(distribution) for name, distribution in spec.space.items()}
    search = OptunaSearch(space, metric=OBJECTIVE, mode=spec.objective.direction, seed=spec.seed)
    yield lambda: fit(spec, report_values, search, [])


@contextmanager
def ours(spec: SweepSpec) -> Iterator[Searching]:
    """The same with the searcher, the recorder, the tracker and the store of a sweep."""
    from ray import tune

    from sweeps.recorder import now_ms
    from sweeps.searcher import IncrementalSearch

    with recorded(spec, AT_ONCE) as recorder:
        trial = tune.with_parameters(report_events, bases=recorder.bases, aim=spec.aim, folder=spec.folder)
        yield lambda: fit(spec, trial, IncrementalSearch(spec), [recorder])
        recorder.tracker.end_sweep("finished", {}, now_ms())


@contextmanager
def recorded(spec: SweepSpec, at_once: int) -> Iterator[Recorder]:
    """A sweep's listener, whose records are open; its trials read no files."""
    from sweeps.progress import Display, TrialCount
    from sweeps.recorder import Recorder, now_ms, scope_tags
    from sweeps.tracking import tracker_of

    config = configured(spec, unread_splits(), spec.method, spec.all_defaults())
    display, count = Display(Console(file=io.StringIO())), TrialCount(spec.trials, at_once, spec.objective)
    with tracker_of(spec) as tracker:
        tracker.start_sweep(spec.text, scope_tags(config), now_ms())
        yield Recorder(spec, {spec.method: config}, tracker, display, count)


def unread_splits() -> Splits:
    """Files that are there, for trials that read none."""
    unread = Split(CONFIGS / "erd_digits.yaml", CONFIGS)
    return Splits(unread, unread, unread, ())


def fit(spec: SweepSpec, trial: Callable[..., None], search: Any, callbacks: list[Any]) -> None:
    """Search as `sweeps.runner` does; every trial must end well."""
    from ray import tune

    results = tune.Tuner(
        tune.with_resources(trial, {"CPU": 1}),
        tune_config=tune.TuneConfig(
            search_alg=search, num_samples=spec.trials, max_concurrent_trials=AT_ONCE, reuse_actors=True
        ),
        run_config=tune.RunConfig(name="tune", storage_path=str(spec.folder), callbacks=callbacks, verbose=0),
    ).fit()
    assert (len(results), results.num_errors) == (spec.trials, 0)


def report_values(chosen: dict[str, Any]) -> None:
    """A bare trial."""
    from ray import tune

    for progress in (0, 5):
        tune.report({OBJECTIVE: value_of(chosen), PROGRESS: progress})


def report_events(chosen: dict[str, Any], bases: dict[str, TrialConfig], aim: Aim, folder: Path) -> None:
    """One of our trials, as `trainables.tune` runs it, without the training."""
    from ray import tune

    config = with_parameters(bases, chosen)
    Store(folder / "store").get("scale", config.step_identity(0), lambda entry: None)
    reporter = Reporter(events_file(folder / "trials", tune.get_context().get_trial_id()), aim, config)
    for step in range(len(config.scenario.steps)):
        reporter(event_of(config, step, config.epochs, value_of(chosen)))


@contextmanager
def memory() -> Iterator[list[float]]:
    """This process's resident memory in MB, sampled until the end of the block."""
    this, ended = psutil.Process(), threading.Event()
    samples = [this.memory_info().rss / 2**20]

    def sample() -> None:
        while not ended.wait(SAMPLE_S):
            samples.append(this.memory_info().rss / 2**20)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def growth_mb(rss_mb: Sequence[float]) -> float:
    """From the end of the first tenth to the end."""
    return rss_mb[-1] - rss_mb[len(rss_mb) // 10]


def _middle(costs: list[Cost], what: str) -> float:
    return median(getattr(cost, what) for cost in costs)


def _show(costs: dict[str, list[Cost]], trials: int) -> None:
    table = Table(title=f"{trials} trials that only report, {AT_ONCE} at a time; a trial's mean")
    for column in ("", "wall ms", "driver CPU ms", "records after fit, ms", "memory growth MB"):
        table.add_column(column, justify="right")
    for side, of_side in costs.items():
        times = [f"{1000 * _middle(of_side, what):.1f}" for what in ("wall_s", "cpu_s", "after_s")]
        table.add_row(side, *times, f"{_middle(of_side, 'growth_mb'):.1f}")
    Console().print(table)
