"""All that MLflow holds of one sweep, for its report: nothing here comes from anywhere else."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.connection import KnownRun, TrackingError, answered, known_runs
from sweeps.results import Trial, experiment, ranked, trials_of
from sweeps.spec import SweepSpec, parse_spec

REFERENCE = "reference/"


@dataclass(frozen=True)
class Matrix:
    """AP by step and class of the trial with that number; None where a class is not known or has no ground truth."""

    number: int
    classes: Sequence[str]
    rows: Sequence[Sequence[float | None]]


@dataclass(frozen=True)
class Findings:
    """A sweep as MLflow has it.

    Attributes:
        trials: best first, as `sweeps.results.ranked` has them.
        metrics, tags: of the sweep's run.
        references: by name and metric, the value after each step that has one, on the tune split; those that a
            promotion scored on the test split are named `test/...`.
        steps: of each trial, by its number, the metrics of each step that it finished, by the step's index from 0; of
            several scenarios the first one's.
        matrix: of the best trial; None before one has finished.
        result: of the promotion: by scenario, metrics by row of its table and name, one value a seed; None before it.
        race: where the leaders' race ended; None without one.
    """

    spec: SweepSpec
    trials: Sequence[Trial]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    references: Mapping[str, Mapping[str, Mapping[int, float]]]
    steps: Mapping[int, Mapping[int, Mapping[str, float]]]
    matrix: Matrix | None = None
    result: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]] | None = None
    race: Mapping[str, Any] | None = None

    @property
    def finished(self) -> list[Trial]:
        """The trials that came to their end, best first."""
        return [trial for trial in self.trials if trial.state == "finished"]


def read_findings(uri: str, name: str) -> Findings:
    """Everything on a sweep.

    Raises:
        TrackingError: MLflow does not answer, or has no such sweep.
        SpecError: the sweep file that it holds is not one.
    """
    return answered(uri, lambda: _findings(_Records(uri, name)))


def read_trials(uri: str, name: str) -> tuple[SweepSpec, list[Trial]]:
    """A sweep's file and its trials, best first; raises what `read_findings` does."""
    records = answered(uri, lambda: _Records(uri, name))
    return records.spec, records.trials


class _Records:
    """The runs of a sweep by level, trial and step, and their files."""

    def __init__(self, uri: str, name: str) -> None:
        self.client, experiment_id = experiment(uri, name)
        runs = list(known_runs(self.client, experiment_id))
        self.runs = {run.key: run for run in reversed(runs)}
        if ("sweep", "", "") not in self.runs:
            raise TrackingError("tracking", [f"{name!r} at {uri} has no run of a sweep"])
        self.sweep = self.runs["sweep", "", ""]
        self.spec = parse_spec(self.text(self.sweep, "spec.yaml"), name, check_files=False)
        self.trials = ranked(self.spec.aim, trials_of(runs))

    def text(self, run: KnownRun, name: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            return Path(self.client.download_artifacts(run.run_id, name, folder)).read_text(encoding="utf-8")

    def steps(self) -> dict[int, dict[int, KnownRun]]:
        """The runs of the steps, see `Findings.steps`."""
        numbers = {trial.trial_id: trial.number for trial in self.trials}
        found: dict[int, dict[int, KnownRun]] = {number: {} for number in numbers.values()}
        for (level, trial_id, step), run in self.runs.items():
            scenario, _, index = step.rpartition(":")
            if level == "step" and trial_id in numbers and scenario in ("", self.spec.scenario.name):
                found[numbers[trial_id]][int(index)] = run
        return found


def _findings(records: _Records) -> Findings:
    steps = records.steps()
    files = {file.path for file in records.client.list_artifacts(records.sweep.run_id)}
    result, race = (
        json.loads(records.text(records.sweep, f"{name}.json")) if f"{name}.json" in files else None
        for name in ("result", "race")
    )
    return Findings(
        spec=records.spec,
        trials=records.trials,
        metrics=records.sweep.metrics,
        tags=records.sweep.tags,
        references=_references(records),
        steps={number: {step: run.metrics for step, run in own.items()} for number, own in steps.items()},
        matrix=_matrix(records, steps),
        result=result,
        race=race,
    )


def _references(records: _Records) -> dict[str, dict[str, dict[int, float]]]:
    found: dict[str, dict[str, dict[int, float]]] = {}
    for key in records.sweep.metrics:
        if key.startswith(REFERENCE):
            name, _, metric = key.removeprefix(REFERENCE).rpartition("/")
            history = records.client.get_metric_history(records.sweep.run_id, key)
            found.setdefault(name, {})[metric] = {point.step: point.value for point in history}
    return found


def _matrix(records: _Records, steps: Mapping[int, Mapping[int, KnownRun]]) -> Matrix | None:
    for trial in records.trials:
        if trial.state == "finished" and (own := steps[trial.number]):
            told = json.loads(records.text(own[max(own)], "ap_matrix.json"))
            return Matrix(trial.number, told["classes"], told["ap"])
    return None
