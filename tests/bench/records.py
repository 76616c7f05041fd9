"""Whether MLflow has what the trials of a sweep reported: each record once, in order."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from pathlib import Path

from mlflow import MlflowClient

from sweeps.connection import known_runs
from sweeps.spec import SweepSpec
from trainables.journal import read

Key = tuple[str, str, str]
Points = dict[str, list[tuple[int, float]]]


def faults(spec: SweepSpec, database: Path) -> list[str]:
    """What is wrong with the records of a sweep that has ended, against the events that its trials kept, in words.

    Args:
        database: SQLite; the artifacts are in `mlartifacts` beside it.
    """
    expected, written = _expected(spec.folder / "trials"), _points(database)
    client = MlflowClient(f"sqlite:///{database}")
    runs = list(known_runs(client, client.get_experiment_by_name(spec.name).experiment_id))
    tables = {path.parts[-3] for path in database.with_name("mlartifacts").rglob("classes.csv")}
    num_trials = sum(key[0] == "trial" for key in expected)
    there, wanted = Counter(run.key for run in runs), Counter(list(expected))
    found = [] if num_trials == spec.trials else [f"{num_trials} trials, not {spec.trials}"]
    found += [f"{key}: {there[key]} runs, not {wanted[key]}" for key in there | wanted if there[key] != wanted[key]]
    for run in runs:
        if run.status != "FINISHED":
            found.append(f"{run.key}: {run.status}")
        if run.key[0] == "step" and run.run_id not in tables:
            found.append(f"{run.key}: no table of classes")
        for name, points in expected.get(run.key, {}).items():
            if written[run.run_id][name] != points:
                found.append(f"{run.key}: {name} is {written[run.run_id][name]}, not {points}")
    return found


def _expected(folder: Path) -> dict[Key, Points]:
    """By run and metric, what `sweeps.recorder.record_event` notes of the events of each trial."""
    expected: dict[Key, Points] = {("sweep", "", ""): {}}
    for file in folder.glob("*/events.jsonl"):
        for event in read(file):
            keys: list[Key] = [("trial", file.parent.name, "")]
            if "classes" in event:
                keys.append(("step", file.parent.name, str(event["step"])))
                noted, at = event["metrics"] | event["facts"], event["step"]
            else:
                noted, at = {f"epoch/{name}": value for name, value in event["metrics"].items()}, event["progress"]
            for key in keys:
                points = expected.setdefault(key, defaultdict(list))
                for name, value in noted.items():
                    points[name].append((at, value))
    return expected


def _points(database: Path) -> dict[str, Points]:
    """By run and metric, all points as they were written."""
    points: dict[str, Points] = defaultdict(lambda: defaultdict(list))
    with closing(sqlite3.connect(database)) as opened:
        for run_id, name, step, value in opened.execute(
            "select run_uuid, key, step, value from metrics order by rowid"
        ):
            points[run_id][name].append((step, value))
    return points
