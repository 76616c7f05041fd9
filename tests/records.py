"""What MLflow has of sweeps, read through its own client."""

from __future__ import annotations

from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run


def runs_of(uri: str, **tags: str) -> list[Run]:
    """The runs with these tags, such as `sweep`, `level`, `trial_id`; the newest first."""
    client = MlflowClient(uri)
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    return [run for run in runs if tags.items() <= run.data.tags.items()]


def the_run(uri: str, **tags: str) -> Run:
    """The only one with these tags."""
    (run,) = runs_of(uri, **tags)
    return run


def points(uri: str, run: Run, metric: str) -> list[tuple[int, float]]:
    """The curve of a metric: step and value."""
    return [(point.step, point.value) for point in MlflowClient(uri).get_metric_history(run.info.run_id, metric)]


def artifact(uri: str, run: Run, name: str) -> str:
    """The text of a run's artifact."""
    return Path(MlflowClient(uri).download_artifacts(run.info.run_id, name)).read_text(encoding="utf-8")


def artifacts(uri: str, run: Run) -> set[str]:
    """The names of a run's artifacts."""
    return {file.path for file in MlflowClient(uri).list_artifacts(run.info.run_id)}
