"""What a sweep found, read back from MLflow: its trials, and the best of them."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import ge
from statistics import fmean
from typing import TYPE_CHECKING, TypeVar

from search_spaces.distributions import Scalar
from search_spaces.params import params_of
from sweeps.connection import KnownRun, TrackingError, answered, connect, database_file, known_runs
from sweeps.spec import SweepSpec
from sweeps.spec_parameters import classes
from trainables.config import Segment
from trainables.errors import SpecError
from trainables.objectives import Aim, Objective
from trainables.scenarios import Scenario

if TYPE_CHECKING:
    from mlflow import MlflowClient

AIMED, EXCESS, PART = "objective/", "excess/", "scenario/"
"""What the records' names start with: of objectives, of constraints, of the first objective in one of the scenarios."""


def reference_prefix(scenarios: Sequence[Scenario], scenario: Scenario) -> str:
    """What the records' names of a scenario's references begin with, where there are several scenarios."""
    return f"{metric_name(scenario.name)}/" if len(scenarios) > 1 else ""


def metric_name(scenario: str) -> str:
    """A scenario in the name of a metric: MLflow takes no `+`."""
    return re.sub(r"[^A-Za-z0-9_./ -]", "_", scenario)


@dataclass(frozen=True)
class Trial:
    """One trial of a search, as MLflow has it.

    Attributes:
        state: `running`, `finished`, `stopped` or `failed`.
        method: of the catalogue.
        params: flat names, as MLflow's texts; see `typed_params`.
        ap: `ap_all`, `ap_old`, `ap_new`, `forgetting`, ... as far as it came: at its end, or where it was stopped.
        progress: on the clock, where it ended.
        pooled: how its scenarios count, where it ran several.
        schedule: what acted when, where its parameters changed on its way.
        hours: from its first start to its end, or to now; pauses count.
        message: why it failed.
    """

    number: int
    trial_id: str
    state: str
    method: str
    params: Mapping[str, str]
    ap: Mapping[str, float]
    hours: float
    schedule: tuple[Segment, ...] = ()
    progress: int = 0
    pooled: str = ""
    message: str = ""

    def reached(self, objective: Objective) -> float | None:
        """An objective as far as it came; None where it has none yet."""
        return self.ap.get(AIMED + objective.name, self.ap.get(objective.metric))

    @property
    def parts(self) -> list[float]:
        """The first objective in each of several scenarios, by the names of these."""
        return [value for name, value in sorted(self.ap.items()) if name.startswith(PART)]

    def values(self, aim: Aim) -> list[float] | None:
        """The objectives at the trial's end; None before it."""
        values = [self.ap.get(AIMED + objective.name) for objective in aim.objectives]
        return None if self.state != "finished" or None in values else [value for value in values if value is not None]

    def holds(self, aim: Aim) -> bool:
        """Whether it meets every constraint."""
        return all(self.ap.get(EXCESS + one.name, math.inf) <= 0 for one in aim.constraints)


_Trial = TypeVar("_Trial", bound=Trial)


def searched(uri: str, sweep: str) -> list[Trial]:
    """The trials of a search by number; finally trained runs are not among them.

    Raises:
        TrackingError: MLflow does not answer, or has no such sweep.
    """
    client, experiment_id = experiment(uri, sweep)
    return answered(uri, lambda: trials_of(known_runs(client, experiment_id, "trial")))


def experiment(uri: str, sweep: str) -> tuple[MlflowClient, str]:
    """MLflow, and the id of the experiment that has a sweep's runs.

    Raises:
        TrackingError: MLflow does not answer, or has no such sweep.
    """
    database = database_file(uri)
    if database and not database.is_file():
        raise TrackingError("tracking", [f"there is no database {database}"])
    client = connect(uri)
    found = answered(uri, lambda: client.get_experiment_by_name(sweep))
    if found is None:
        known = answered(uri, client.search_experiments)
        names = ", ".join(sorted(one.name for one in known if one.name != "Default")) or "none"
        raise TrackingError("tracking", [f"there is no sweep {sweep!r} at {uri}; available: {names}"])
    return client, found.experiment_id


def trials_of(runs: Iterable[KnownRun]) -> list[Trial]:
    """Those of a search among the runs of a sweep, by number."""
    trials = [_trial(run) for run in runs if run.key[0] == "trial" and run.tags.get("role") == "search"]
    return with_ranks(sorted(trials, key=lambda trial: trial.number))


def ranked(aim: Aim, found: Iterable[_Trial]) -> list[_Trial]:
    """Finished trials first, of these those that meet the constraints, of these those that ran under most seeds, of
    these the best by the first objective, the mean of the seeds where there were several; of equal ones the first.
    """
    objective = aim.objectives[0]
    sign = -1 if objective.direction == "max" else 1

    def place(trial: _Trial) -> tuple[bool, bool, float, float, int]:
        value = trial.ap.get("race/mean", trial.reached(objective))
        seeds = trial.ap.get("race/seeds", 0.0)
        behind = math.inf if value is None else sign * value
        return trial.values(aim) is None, not trial.holds(aim), -seeds, behind, trial.number

    return sorted(found, key=place)


def mean_ranks(parts: Sequence[Sequence[float]]) -> list[float]:
    """Of each of some trials the share of the others that are below it, mean of the scenarios; a tie counts half.

    It points the way that the objective does: where low values are better, low ranks are.
    """
    others = len(parts) - 1

    def share(index: int, scenario: int) -> float:
        own = parts[index][scenario]
        below = sum((other[scenario] < own) + 0.5 * (other[scenario] == own) for other in parts) - 0.5
        return below / others if others else 0.5

    scenarios = range(len(parts[0])) if parts else ()
    return [fmean(share(index, scenario) for scenario in scenarios) for index in range(len(parts))]


def with_ranks(trials: Sequence[_Trial]) -> list[_Trial]:
    """Trials that are judged by their rank, with that among all that have finished in place of the one at their end."""
    finished = [trial for trial in trials if trial.state == "finished" and trial.pooled == "rank"]
    ranks = dict(zip((trial.number for trial in finished), mean_ranks([t.parts for t in finished]), strict=True))

    def judged(trial: _Trial) -> _Trial:
        aims = [name for name in trial.ap if name.startswith(AIMED)]
        return replace(trial, ap={**trial.ap, **dict.fromkeys(aims, ranks[trial.number])})

    return [judged(trial) if trial.number in ranks else trial for trial in trials]


def _trial(run: KnownRun) -> Trial:
    running = run.status == "RUNNING"
    state = "running" if running else run.tags.get("verdict", "failed")
    end_ms = time.time() * 1000 if running or run.end_ms is None else run.end_ms
    at_a_steps_end = not running and run.metrics.get("progress", 0) > max(0, int(run.tags.get("progress", -1)))
    ap = run.metrics if state == "finished" or at_a_steps_end else _inside_a_step(run.metrics)
    schedule = tuple(Segment(**one) for one in json.loads(run.tags.get("schedule", "[]")))
    hours = (end_ms - run.start_ms) / 3.6e6
    return Trial(
        int(run.tags["number"]),
        run.tags["trial_id"],
        state,
        run.tags["method"],
        run.params,
        ap,
        hours,
        schedule,
        int(run.metrics.get("progress", 0)),
        run.tags.get("pooled", ""),
        run.tags.get("message", ""),
    )


def _inside_a_step(metrics: Mapping[str, float]) -> dict[str, float]:
    """What a trial reached inside a step; the latest values without a prefix are those of the step before."""
    return {
        name.removeprefix("epoch/").removesuffix("_mid"): value
        for name, value in metrics.items()
        if name.startswith("epoch/") and name.endswith("_mid")
    }


def best_trial(spec: SweepSpec, found: Sequence[Trial], which: str | None = None) -> Trial:
    """The finished trial that meets the constraints and is best by the spec's objective, over seeds where leaders ran
    under several; or the one named `which`.

    Args:
        which: number or id; needed where there are several objectives and no trial is best in all of them.

    Raises:
        SpecError: no such trial.
    """
    finished = [trial for trial in found if trial.values(spec.aim) is not None]
    if which is not None:
        chosen = [trial for trial in finished if which in (str(trial.number), trial.trial_id)]
        if not chosen:
            raise SpecError(spec.name, [f"trial {which} has not finished; finished trials: {_numbers(finished)}"])
        return chosen[0]
    if not finished:
        raise SpecError(spec.name, [f"no trial has finished with {spec.aim.line}; go on with `sweeps run --resume`"])
    front = pareto_front(spec, finished)
    if not front:
        missed = "; ".join(map(str, spec.aim.constraints))
        raise SpecError(spec.name, [f"no trial meets {missed}; choose one with --trial: {_numbers(finished)}"])
    if len(spec.aim.objectives) > 1 and len(front) > 1:
        line = f"several trials are best, each in its way; choose one with --trial: {_numbers(front)}"
        raise SpecError(spec.name, [line])
    return front[0]


def pareto_front(spec: SweepSpec, found: Sequence[Trial]) -> list[Trial]:
    """The trials that meet the constraints and that none other beats: as good in all objectives, better in one.

    Best first, as `ranked` has them; of equal trials the first. With one objective it is the best trial alone.
    """
    able = [trial for trial in ranked(spec.aim, found) if trial.holds(spec.aim) and trial.values(spec.aim)]
    if len(spec.aim.objectives) == 1:
        return able[:1]
    signs = [1 if objective.direction == "max" else -1 for objective in spec.aim.objectives]
    points = {t.number: [s * v for s, v in zip(signs, t.values(spec.aim) or (), strict=True)] for t in able}

    def beaten(number: int) -> bool:
        own = points[number]
        rivals = [(rival, point) for rival, point in points.items() if rival != number and all(map(ge, point, own))]
        return any(point != own or rival < number for rival, point in rivals)

    return [trial for trial in able if not beaten(trial.number)]


def _numbers(trials: Sequence[Trial]) -> str:
    return ", ".join(str(trial.number) for trial in trials) or "none"


def typed_params(spec: SweepSpec, method: str, texts: Mapping[str, str]) -> dict[str, Scalar]:
    """Flat parameters of a method's trial with the types that their classes declare, from MLflow's texts."""
    values: dict[str, Scalar] = {}
    for owner, cls in classes([method], spec.detector).items():
        for name, param in params_of(cls).items():
            values[f"{owner}/{name}"] = param.typed(texts[f"{owner}/{name}"])
    return values
