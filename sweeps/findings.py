"""All that MLflow holds of one sweep, for its report: nothing here comes from anywhere else."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.connection import KnownRun, TrackingError, answered, connect, known_runs
from sweeps.results import Trial, searched
from sweeps.spec import SweepSpec, parse_spec

if TYPE_CHECKING:
    from mlflow import MlflowClient

REFERENCE = "reference/"


@dataclass(frozen=True)
class Findings:
    """A sweep as MLflow has it.

    Attributes:
        run_id, metrics, tags: of the sweep's run.
        references: by name and metric, the value after each step that has one, on the tune split; those that a
            promotion scored on the test split are named `test/...`.
        steps: of each trial, by its number, the metrics of each step that it finished, by the step's index from 0; of
            several scenarios the first one's.
        matrices: of each trial that finished, AP by step and class, and the class names.
        result: of the promotion: by scenario, metrics by row of its table and name, one value a seed; None before it.
        race: where the leaders' race ended; None without one.
    """

    spec: SweepSpec
    run_id: str
    trials: Sequence[Trial]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    references: Mapping[str, Mapping[str, Mapping[int, float]]]
    steps: Mapping[int, Mapping[int, Mapping[str, float]]]
    matrices: Mapping[int, tuple[Sequence[str], Sequence[Sequence[float | None]]]] = field(default_factory=dict)
    result: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]] | None = None
    race: Mapping[str, Any] | None = None


def read_findings(uri: str, name: str, matrices: Sequence[int] = ()) -> Findings:
    """Everything on a sweep.

    Args:
        matrices: the numbers of the trials whose AP by class is wanted.

    Raises:
        TrackingError: MLflow does not answer, or has no such sweep.
        SpecError: the sweep file that it holds is not one.
    """
    trials, client = searched(uri, name), connect(uri)

    def read() -> Findings:
        experiment = client.get_experiment_by_name(name)
        assert experiment is not None, "its trials were read"
        runs = list(known_runs(client, experiment.experiment_id))
        sweep = next((run for run in runs if run.key[0] == "sweep"), None)
        if sweep is None:
            raise TrackingError("tracking", [f"{name!r} at {uri} has no run of a sweep"])
        spec = parse_spec(_text(client, sweep, "spec.yaml"), name, check_files=False)
        first = spec.scenario.name
        numbers = {trial.trial_id: trial.number for trial in trials}
        steps: dict[int, dict[int, Mapping[str, float]]] = {number: {} for number in numbers.values()}
        last: dict[int, KnownRun] = {}
        for run in runs:
            level, trial_id, step = run.key
            if level == "step" and trial_id in numbers:
                scenario, _, index = step.rpartition(":")
                if scenario in ("", first):
                    steps[numbers[trial_id]][int(index)] = run.metrics
                    if int(index) == max(steps[numbers[trial_id]]):
                        last[numbers[trial_id]] = run
        files = {file.path for file in client.list_artifacts(sweep.run_id)}
        return Findings(
            spec=spec,
            run_id=sweep.run_id,
            trials=trials,
            metrics=sweep.metrics,
            tags=sweep.tags,
            references=_references(client, sweep),
            steps=steps,
            matrices={number: _matrix(client, last[number]) for number in matrices if number in last},
            result=json.loads(_text(client, sweep, "result.json")) if "result.json" in files else None,
            race=json.loads(_text(client, sweep, "race.json")) if "race.json" in files else None,
        )

    return answered(uri, read)


def _references(client: MlflowClient, sweep: KnownRun) -> dict[str, dict[str, dict[int, float]]]:
    found: dict[str, dict[str, dict[int, float]]] = {}
    for key in sweep.metrics:
        if key.startswith(REFERENCE):
            name, _, metric = key.removeprefix(REFERENCE).rpartition("/")
            history = client.get_metric_history(sweep.run_id, key)
            found.setdefault(name, {})[metric] = {point.step: point.value for point in history}
    return found


def _matrix(client: MlflowClient, run: KnownRun) -> tuple[Sequence[str], Sequence[Sequence[float | None]]]:
    told = json.loads(_text(client, run, "ap_matrix.json"))
    return told["classes"], told["ap"]


def _text(client: MlflowClient, run: KnownRun, name: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return Path(client.download_artifacts(run.run_id, name, folder)).read_text(encoding="utf-8")
