"""The search of `erd_digits.yaml` against bare OptunaSearch with ASHA, and random search, on simulated trials.

Beside them ours with the searcher's defaults, TPE and ASHA. The simulator is fitted to real trials
(`tests.bench.learning_curves`; `--record N` trains them anew). Every search runs through Ray Tune, two trials at a
time, with trial 0 at the preset. A budget is a number of epochs trained; regret is the AP that the best configuration
that had finished by then lacks of the simulator's optimum, without noise.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from ray.tune import Callback
from rich.console import Console
from rich.table import Table

from search_spaces.distributions import Scalar
from sweeps.samplers import optuna_distribution
from sweeps.spec import SweepSpec, load_spec
from sweeps.spec_file import Scheduler
from tests.bench.learning_curves import SPEC, Simulator, record, recorded
from trainables.tune import EXCESSES, OBJECTIVE, PROGRESS, VALUES

AT_ONCE = 2
ASHA = Scheduler(name="asha", grace=1, reduction_factor=3)
BUDGETS = (20, 40, 60, 80, 120, 160)  # epochs; the sweep file's 16 whole trials are 80


@dataclass(frozen=True)
class Ended:
    """A simulated trial: the epochs that it trained, and its configuration."""

    progress: int
    point: Mapping[str, Scalar]


def run(options: list[str]) -> dict[str, float]:
    """Median regret of ours over theirs, over all seeds and budgets; and how often ours is not behind bare."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench search", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--record", type=int, metavar="N", help="train N real trials first, hours on a small machine")
    given = parser.parse_args(options)
    if given.record:
        with TemporaryDirectory() as folder:
            record(given.record, Path(folder))
    curves, spec = recorded(), load_spec(SPEC)
    with warnings.catch_warnings():  # a parameter that hardly acts has the longest scale that is allowed
        warnings.filterwarnings("ignore", message="The optimal value found for dimension")
        simulator = Simulator(spec, curves)
        shares = ", ".join(f"{share:.2f}" for share in simulator.explained())
    print(f"fitted to {len(curves)} real trials; of the variance of trials left out it explains, by epoch: {shares}")
    print(
        f"preset {100 * simulator.truth(spec.first_points()[0]):.1f}, optimum {100 * simulator.optimum:.1f}", flush=True
    )
    regrets = {name: [] for name in SEARCHES}
    for seed in range(given.seeds):
        for name, search in SEARCHES.items():
            ended = _searched(replace(spec, seed=seed, trials=_trials(name, spec)), search, simulator)
            regrets[name].append(_regret(ended, simulator))
        told = ", ".join(f"{name} {100 * rows[-1][2]:.2f}" for name, rows in regrets.items())
        print(f"seed {seed}, regret after {BUDGETS[2]} epochs: {told}", flush=True)
    _show(regrets)
    return _result(regrets)


def _trials(name: str, spec: SweepSpec) -> int:
    """At least what any budget pays for; with ASHA a trial trains two epochs and more in the mean."""
    return BUDGETS[-1] // (spec.epochs if name in ("ours", "random") else 2)


def _ours(spec: SweepSpec) -> tuple[Any, Any]:
    from sweeps.schedulers import scheduler_of
    from sweeps.searcher import IncrementalSearch

    return IncrementalSearch(spec), scheduler_of(spec)


def _defaults(spec: SweepSpec) -> tuple[Any, Any]:
    return _ours(replace(spec, sampler="tpe", scheduler=ASHA))


def _bare(spec: SweepSpec) -> tuple[Any, Any]:
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    search = OptunaSearch(
        {name: optuna_distribution(distribution) for name, distribution in spec.space.items()},
        metric=OBJECTIVE, mode="max", points_to_evaluate=[dict(spec.first_points()[0])], seed=spec.seed,
    )  # fmt: skip
    scheduler = ASHAScheduler(
        time_attr=PROGRESS, metric=OBJECTIVE, mode="max", max_t=spec.max_progress,
        grace_period=ASHA.grace, reduction_factor=ASHA.reduction_factor,
    )  # fmt: skip
    return search, scheduler


def _random(spec: SweepSpec) -> tuple[Any, Any]:
    import optuna
    from ray.tune.schedulers import FIFOScheduler
    from ray.tune.search.optuna import OptunaSearch

    search = OptunaSearch(
        {name: optuna_distribution(distribution) for name, distribution in spec.space.items()},
        metric=OBJECTIVE, mode="max", points_to_evaluate=[dict(spec.first_points()[0])],
        sampler=optuna.samplers.RandomSampler(seed=spec.seed),
    )  # fmt: skip
    return search, FIFOScheduler()


SEARCHES: dict[str, Callable[[SweepSpec], tuple[Any, Any]]] = {
    "ours": _ours,
    "ours, TPE and ASHA": _defaults,
    "bare": _bare,
    "random": _random,
}


def _searched(spec: SweepSpec, search: Callable[[SweepSpec], tuple[Any, Any]], simulator: Simulator) -> list[Ended]:
    """The trials of one search in the order in which they ended."""
    import optuna
    import ray
    from ray import tune

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if not ray.is_initialized():
        ray.init(num_cpus=AT_ONCE, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    with TemporaryDirectory() as folder:
        spec = replace(spec, storage=Path(folder))
        proposing, scheduler = search(spec)
        listener = _Listener()
        tune.Tuner(
            tune.with_resources(tune.with_parameters(_simulated, simulator=simulator, seed=spec.seed), {"CPU": 1}),
            tune_config=tune.TuneConfig(
                search_alg=proposing, scheduler=scheduler, num_samples=spec.trials,
                max_concurrent_trials=AT_ONCE, reuse_actors=True,
            ),
            run_config=tune.RunConfig(name="tune", storage_path=folder, callbacks=[listener], verbose=0),
        ).fit()  # fmt: skip
    return listener.ended


def _simulated(chosen: dict[str, Any], simulator: Simulator, seed: int) -> None:
    from ray import tune

    for progress, value in enumerate(simulator.curve(_flat(chosen), seed), start=1):
        tune.report({OBJECTIVE: value, VALUES: [value], EXCESSES: [], PROGRESS: progress})


def _flat(chosen: Mapping[str, Any]) -> dict[str, Scalar]:
    return {f"{owner}/{name}": value for owner, own in chosen.items() for name, value in own.items()}


class _Listener(Callback):
    def __init__(self) -> None:
        self.ended: list[Ended] = []

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.ended.append(Ended(trial.last_result[PROGRESS], _flat(trial.config)))


def _regret(ended: Sequence[Ended], simulator: Simulator) -> list[float]:
    """By budget, what the best finished configuration lacks; before any has finished, what the worst known lacks."""
    epochs = max(trial.progress for trial in ended)
    regrets = []
    for budget in BUDGETS:
        spent, best = 0, 0.0
        for trial in ended:
            spent += trial.progress
            if spent > budget:
                break
            if trial.progress == epochs:
                best = max(best, simulator.truth(trial.point))
        regrets.append(simulator.optimum - best)
    return regrets


def _result(regrets: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, float]:
    def pairs(other: str) -> list[tuple[float, float]]:
        return [(o, t) for a, b in zip(regrets["ours"], regrets[other], strict=True) for o, t in zip(a, b, strict=True)]

    wins = [ours <= theirs for ours, theirs in pairs("bare")]
    return {
        "regret_ratio_bare": median(ours / theirs for ours, theirs in pairs("bare")),
        "regret_ratio_random": median(ours / theirs for ours, theirs in pairs("random")),
        "win_rate_bare": sum(wins) / len(wins),
    }


def _show(regrets: Mapping[str, Sequence[Sequence[float]]]) -> None:
    table = Table(title="regret in AP points, median of the seeds")
    for column in ("epochs trained", *regrets):
        table.add_column(column, justify="right")
    for index, budget in enumerate(BUDGETS):
        table.add_row(str(budget), *(f"{100 * median(row[index] for row in rows):.2f}" for rows in regrets.values()))
    Console().print(table)
