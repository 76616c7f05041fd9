"""What a sweep found, read back from MLflow: its trials, and the best of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from search_spaces.distributions import Scalar
from search_spaces.params import params_of
from sweeps.connection import KnownRun, TrackingError, answered, connect, database_file, known_runs
from sweeps.spec import SweepSpec
from trainables.catalog import DETECTORS, METHODS
from trainables.errors import SpecError


@dataclass(frozen=True)
class Trial:
    """One trial of a search, as MLflow has it.

    Attributes:
        state: `running`, `finished`, `stopped` or `failed`.
        params: flat names, as MLflow's texts; see `typed_params`.
        ap: `ap_all`, `ap_old`, `ap_new`, `forgetting`, ... as far as it came: at its end, or where it was stopped.
        hours: from its first start to its end, or to now; pauses count.
    """

    number: int
    trial_id: str
    state: str
    params: Mapping[str, str]
    ap: Mapping[str, float]
    hours: float


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

    return sorted(answered(uri, read), key=lambda trial: trial.number)


def _trial(run: KnownRun) -> Trial:
    running = run.status == "RUNNING"
    state = "running" if running else run.tags.get("verdict", "failed")
    end_ms = time.time() * 1000 if running or run.end_ms is None else run.end_ms
    ap = run.metrics if state == "finished" else _inside_a_step(run.metrics)
    return Trial(int(run.tags["number"]), run.tags["trial_id"], state, run.params, ap, (end_ms - run.start_ms) / 3.6e6)


def _inside_a_step(metrics: Mapping[str, float]) -> dict[str, float]:
    """What a trial reached inside a step; the latest values without a prefix are those of the step before."""
    return {
        name.removeprefix("epoch/").removesuffix("_mid"): value
        for name, value in metrics.items()
        if name.startswith("epoch/") and name.endswith("_mid")
    }


def best_trial(spec: SweepSpec, found: list[Trial], which: str | None = None) -> Trial:
    """The finished trial that is best by the spec's objective, or the one with the number or id `which`.

    Raises:
        SpecError: no such finished trial.
    """
    finished = [trial for trial in found if trial.state == "finished" and spec.objective in trial.ap]
    if which is not None:
        chosen = [trial for trial in finished if which in (str(trial.number), trial.trial_id)]
        if not chosen:
            there = ", ".join(str(trial.number) for trial in finished) or "none"
            raise SpecError(spec.name, [f"trial {which} has not finished; finished trials: {there}"])
        return chosen[0]
    if not finished:
        raise SpecError(spec.name, [f"no trial has finished with {spec.objective}; go on with `sweeps run --resume`"])
    sign = 1 if spec.mode == "max" else -1
    return max(finished, key=lambda trial: (sign * trial.ap[spec.objective], -trial.number))


def typed_params(spec: SweepSpec, texts: Mapping[str, str]) -> dict[str, Scalar]:
    """Flat parameters with the types that their classes declare, from MLflow's texts."""
    values: dict[str, Scalar] = {}
    for prefix, cls in (("method", METHODS[spec.method].params), ("optim", DETECTORS[spec.detector].optim)):
        for name, param in params_of(cls).items():
            text = texts[f"{prefix}/{name}"]
            kind = type(param.default)
            values[f"{prefix}/{name}"] = text == "True" if kind is bool else kind(text)
    return values
