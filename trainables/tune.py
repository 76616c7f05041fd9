"""The Ray door: a trial as a Tune function, references as Ray tasks. torch and mmdet load inside the functions."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainables.config import Runtime, TrialConfig
from trainables.errors import TrainingError
from trainables.files import write_json

OBJECTIVE = "objective"
PROGRESS = "progress"
FAILURE = "failure"


def with_parameters(base: TrialConfig, chosen: Mapping[str, Mapping[str, Any]]) -> TrialConfig:
    """`base` with the parameters that the search chose, as `{"method": {...}, "optim": {...}}`."""
    params = {**base.params, **chosen.get("method", {})}
    return replace(base, params=params, optim={**base.optim, **chosen.get("optim", {})})


def tune_trial(chosen: dict[str, Any], base: TrialConfig, runtime: Runtime, objective: str, folder: Path) -> None:
    """One trial under Ray Tune. What it has reported is kept beside it, so that a restart repeats no work.

    A loss that is not finite is the last thing it reports, as `FAILURE`: to raise would make Tune try again, in a new
    process, what ends the same way each time.

    Args:
        chosen: what the search chose; see `with_parameters`.
        objective: the metric that the sweep aims at.
        folder: of the sweep's trials, on a path that all nodes share.
    """
    from ray import tune

    from trainables.environment import release_memory
    from trainables.trial import run_trial

    reporter = _Reporter(events_file(folder, tune.get_context().get_trial_id()), objective)
    try:
        run_trial(with_parameters(base, chosen), runtime, reporter)
    except TrainingError as error:
        tune.report({OBJECTIVE: math.nan, PROGRESS: reporter.progress, FAILURE: str(error)})
    finally:  # Tune ends a stopped trial by raising in `report`
        release_memory()


def events_file(folder: Path, trial_id: str) -> Path:
    """Where a trial keeps what it reported, a list of events in their order; see `tune_trial`."""
    return folder / trial_id / "events.json"


class _Reporter:
    """Keeps events, and tells Tune where the clock and the objective are.

    A trial that starts again says what it said before, and every listener knows it already.
    """

    def __init__(self, path: Path, objective: str) -> None:
        self.path, self.objective = path, objective
        self.events: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
        for event in self.events:
            self._send(event)

    def __call__(self, event: dict[str, Any]) -> None:
        event = _finite(event)
        if event[PROGRESS] not in {known[PROGRESS] for known in self.events}:
            self.events.append(event)
            write_json(self.path, self.events)
            self._send(event)

    @property
    def progress(self) -> int:
        """The clock at the last event."""
        return int(self.events[-1][PROGRESS]) if self.events else 0

    def _send(self, event: dict[str, Any]) -> None:
        from ray import tune

        tune.report({OBJECTIVE: self._value(event), PROGRESS: event[PROGRESS]})

    def _value(self, event: dict[str, Any]) -> float:
        name = self.objective if "classes" in event else f"{self.objective}_mid"
        return float(event["metrics"].get(name, math.nan))


def _finite(event: dict[str, Any]) -> dict[str, Any]:
    """The event without what JSON and MLflow cannot hold: metrics that are nan."""
    kept = {
        name: {k: v for k, v in event[name].items() if math.isfinite(v)}
        for name in ("metrics", "facts")
        if name in event
    }
    return event | kept


def joint_task(config: TrialConfig, runtime: Runtime, step: int) -> None:
    """Train and score the reference of `step` into the store; for step 0 it is the base step of every trial."""
    from trainables.trial import run_joint

    run_joint(config, runtime, step)


def tables_task(config: TrialConfig, runtime: Runtime, *after: Any) -> None:
    """Build the tables of the first increment, whose teacher all trials share, once the tasks `after` are done."""
    from trainables.trial import build_tables

    build_tables(config, runtime)


def chain_task(config: TrialConfig, runtime: Runtime, *after: Any) -> list[dict[str, Any]]:
    """The events of a whole chain, once the tasks `after` are done.

    Raises:
        TrainingError: a loss that is not finite.
    """
    from trainables.trial import run_trial

    events: list[dict[str, Any]] = []
    run_trial(config, runtime, lambda event: events.append(_finite(event)))
    return events


def export_task(config: TrialConfig, runtime: Runtime, folder: Path) -> Path:
    """The exported checkpoint of a chain that the store holds; see `trainables.export.export`."""
    from trainables.export import export
    from trainables.store import Store

    chain = Store(runtime.store).find("steps", config.step_identity(len(config.scenario.steps) - 1))
    assert chain is not None, "the chain was trained before"
    return export(config, chain / "weights.pt", folder)
