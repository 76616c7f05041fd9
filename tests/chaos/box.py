"""A folder in which a person runs one small sweep, and what it comes to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweeps.study import study_storage
from tests.records import artifact, runs_of
from tests.smoke.servers import running
from tests.smoke.workspace import ROOT
from trainables.store_manifest import read_manifest

SPEC = """
name: small
scenario: digits/4+3+3
data: {kind: digits, sizes: [96, 24, 24]}
detector: gfl_r18_tiny
method: erd
search: {lambda_cls: [0.1, 10.0], alpha_cls: declared, lr_scale: declared}
training: {base_epochs: 2, epochs: 2, batch_size: 16}
trials: 2
max_concurrent: 1
scheduler: {name: none}
compare: [finetune]
promotion: {seeds: [1]}
"""
METRICS = ("ap_all", "ap_old", "ap_new", "forgetting", "loss_cls", "loss_dist_cls")


class Box:
    """Runs `sweeps run` and `sweeps promote` in processes of their own.

    Attributes:
        environment: what they see beside this process's own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.environment = folder, {"PYTHONPATH": str(ROOT), "COLUMNS": "160"}
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "small.yaml").write_text(SPEC, encoding="utf-8")
        self.database = f"sqlite:///{folder / 'mlflow.db'}"

    def aside(self, name: str) -> Path:
        """A folder of this box that no sweep uses."""
        path = self.folder / "aside" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    @contextmanager
    def running(self, verb: str) -> Iterator[subprocess.Popen[str]]:
        """`sweeps run small.yaml --resume`, or another verb, under way, until the end of the block at the latest."""
        arguments = ["run", "small.yaml", "--resume"] if verb == "run" else [verb, "small"]
        command = [sys.executable, "-c", "from sweeps.cli import main; main()", *arguments]
        environment = os.environ | self.environment
        with (
            (self.folder / "printed.txt").open("a") as printed,
            running(command, cwd=self.folder, env=environment, stdout=printed, stderr=subprocess.STDOUT) as process,
        ):
            yield process

    def run(self, verb: str, status: int = 0) -> str:
        """What it printed, once it has ended.

        Raises:
            AssertionError: with another exit status.
        """
        before = len(self.printed)
        with self.running(verb) as process:
            assert process.wait(timeout=600) == status, self.printed[-3000:]
        return self.printed[before:]

    @property
    def printed(self) -> str:
        """All that was printed here so far."""
        path = self.folder / "printed.txt"
        return path.read_text() if path.exists() else ""

    def outcome(self, promoted: bool) -> dict[str, Any]:
        """The numbers that a sweep came to, for comparison to the last bit; everything else must be in order.

        Raises:
            AssertionError: a run, a trial or an entry of the store is not as it must be.
        """
        uri = self.environment.get("MLFLOW_TRACKING_URI", self.database)
        runs = runs_of(uri, sweep="small")
        assert {run.info.status for run in runs} == {"FINISHED"}, "a run is left, or failed"
        names = ("level", "trial_id", "step", "scenario")
        places = Counter(tuple(run.data.tags.get(name) for name in names) for run in runs)
        assert set(places.values()) == {1}, f"runs are there twice: {places}"
        trials = {
            run.data.params["config_id"]: {name: run.data.metrics[name] for name in METRICS if name in run.data.metrics}
            for run in runs
            if run.data.tags["level"] == "trial" and run.data.tags.get("role") == "search"
        }
        self._study_in_order(len(trials))
        self._store_in_order()
        (sweep,) = (run for run in runs if run.data.tags["level"] == "sweep")
        return {"trials": trials, "promoted": _result(artifact(uri, sweep, "result.json")) if promoted else None}

    def _study_in_order(self, trials: int) -> None:
        import optuna

        study = optuna.load_study(study_name="small", storage=study_storage(self.folder / "runs/sweeps/small"))
        assert Counter(trial.state.name for trial in study.trials) == {"COMPLETE": trials}

    def _store_in_order(self) -> None:
        entries = [path.parent for path in (self.folder / "runs/store").glob("*/*/manifest.json")]
        assert entries
        assert all(read_manifest(entry).matches(entry) for entry in entries), "an entry of the store is broken"


def _result(text: str) -> Any:
    return {
        scenario: {name: {k: v for k, v in row.items() if k in METRICS} for name, row in of.items()}
        for scenario, of in json.loads(text).items()
    }
