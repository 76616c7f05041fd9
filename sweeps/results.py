"""What a sweep found, read back from MLflow: its trials, and the best of them."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import ge
from statistics import fmean

from search_spaces.distributions import Scalar
from search_spaces.params import params_of
from sweeps.connection import KnownRun, TrackingError, answered, connect, database_file, known_runs
from sweeps.spec import SweepSpec
from sweeps.spec_parameters import classes
from trainables.config import Segment
from trainables.errors import SpecError
from trainables.objectives import Aim
from trainables.scenarios import Scenario

OBJECTIVE, EXCESS, PART = "objective/", "excess/", "scenario/"
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

    def values(self, aim: Aim) -> list[float] | None:
        """The objectives at the trial's end; None before it."""
        values = [self.ap.get(OBJECTIVE + objective.name) for objective in aim.objectives]
        return None if self.state != "finished" or None in values else [value for value in values if value is not None]

    def holds(self, aim: Aim) -> bool:
        """Whether it meets every constraint."""
        return all(self.ap.get(EXCESS + one.name, math.inf) <= 0 for one in aim.constraints)


def searched(uri: str, sweep: str) -> list[Trial]:
    """The trials of a search by number; finally trained runs are not among them.

    Raises:
        TrackingError: MLflow does not answer, or has no such sweep.
    """
    database = database_file(uri)
    if database and not database.is_file():
        raise TrackingError("tracking", [f"there is no database {database}"])
    client = connect(uri)

    def read() -> list[Trial]:
        experiment = client.get_experiment_by_name(sweep)
        if experiment is None:
            names = ", ".join(sorted(e.name for e in client.search_experiments() if e.name != "Default")) or "none"
            raise TrackingError("tracking", [f"there is no sweep {sweep!r} at {uri}; available: {names}"])
        runs = known_runs(client, experiment.experiment_id, "trial")
        return [_trial(run) for run in runs if run.tags.get("role") == "search"]

    return _with_ranks(sorted(answered(uri, read), key=lambda trial: trial.number))


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


def _with_ranks(trials: list[Trial]) -> list[Trial]:
    """Trials that are judged by their rank, with that among all that have finished in place of the one at their end."""
    ranked = [trial for trial in trials if trial.state == "finished" and trial.pooled == "rank"]
    if not ranked:
        return trials
    parts = [[value for name, value in sorted(t.ap.items()) if name.startswith(PART)] for t in ranked]
    name = next(name for name in ranked[0].ap if name.startswith(OBJECTIVE))
    ranks = dict(zip((trial.number for trial in ranked), mean_ranks(parts), strict=True))
    return [replace(t, ap={**t.ap, name: ranks[t.number]}) if t.number in ranks else t for t in trials]


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
    if raced := [trial for trial in finished if "race/mean" in trial.ap]:
        sign = -1 if spec.objective.direction == "max" else 1
        return min(raced, key=lambda t: (-t.ap["race/seeds"], sign * t.ap["race/mean"], t.number))
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

    By the first objective, best first; of equal trials the first. With one objective it is the best trial alone.
    """
    signs = [1 if objective.direction == "max" else -1 for objective in spec.aim.objectives]
    known = {
        trial.number: (trial, tuple(sign * value for sign, value in zip(signs, values, strict=True)))
        for trial in found
        if trial.holds(spec.aim) and (values := trial.values(spec.aim)) is not None
    }
    front = [
        (trial, own)
        for number, (trial, own) in known.items()
        if not any(
            all(map(ge, other, own)) and (other != own or rival < number)
            for rival, (_, other) in known.items()
            if rival != number
        )
    ]
    return [trial for trial, own in sorted(front, key=lambda pair: (*(-value for value in pair[1]), pair[0].number))]


def _numbers(trials: Sequence[Trial]) -> str:
    return ", ".join(str(trial.number) for trial in trials) or "none"


def typed_params(spec: SweepSpec, method: str, texts: Mapping[str, str]) -> dict[str, Scalar]:
    """Flat parameters of a method's trial with the types that their classes declare, from MLflow's texts."""
    values: dict[str, Scalar] = {}
    for owner, cls in classes([method], spec.detector).items():
        for name, param in params_of(cls).items():
            values[f"{owner}/{name}"] = param.typed(texts[f"{owner}/{name}"])
    return values
