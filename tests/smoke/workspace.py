"""Sweeps that really run, in processes of their own, on few and small digit scenes."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Run

from tests.records import runs_of
from tests.smoke.servers import running

ROOT = Path(__file__).parents[2]
SPEC = """
name: {name}
scenario: digits/5+5
data: {{kind: digits, sizes: [96, 24, 24]}}
detector: gfl_r18_tiny
method: erd
search: {{lambda_cls: [0.1, 10.0], alpha_cls: declared, lr_scale: declared}}
training: {{base_epochs: 1, epochs: 2, batch_size: 16}}
trials: {trials}
max_concurrent: {at_once}
scheduler: {{name: {scheduler}, grace: 1, reduction_factor: 2}}
compare: [joint, finetune]
promotion: {{seeds: [0, 1]}}
"""
FIGURES = ("ap_all", "ap_old", "ap_new", "loss_cls", "loss_dist_cls")


@dataclass(frozen=True)
class Workspace:
    """A folder in which a person runs sweeps."""

    folder: Path

    def write_spec(self, name: str, trials: int = 2, at_once: int = 2, scheduler: str = "none", more: str = "") -> Path:
        """A sweep file."""
        path = self.folder / f"{name}.yaml"
        path.write_text(SPEC.format(name=name, trials=trials, at_once=at_once, scheduler=scheduler) + more)
        return path

    def running(self, *arguments: str) -> AbstractContextManager[subprocess.Popen[str]]:
        """`sweeps ...` under way, until the end of the block at the latest."""
        return running(
            [sys.executable, "-c", "from sweeps.cli import main; main()", *arguments],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "160"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, status: int = 0) -> str:
        """What `sweeps ...` prints."""
        with self.running(*arguments) as process:
            return ended(process, status)

    @property
    def tracking_uri(self) -> str:
        """The workspace's MLflow."""
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    def trials(self, sweep: str) -> list[Run]:
        """The trials of a sweep's search in MLflow, by number; no run of the sweep is left open."""
        runs = runs_of(self.tracking_uri, sweep=sweep)
        assert "RUNNING" not in {run.info.status for run in runs}
        trials = [run for run in runs if (run.data.tags["level"], run.data.tags.get("role")) == ("trial", "search")]
        return sorted(trials, key=lambda run: int(run.data.tags["number"]))

    def figures(self, sweep: str) -> dict[str, dict[str, float]]:
        """The final figures of each trial by its configuration; every run has ended well."""
        assert {run.info.status for run in runs_of(self.tracking_uri, sweep=sweep)} == {"FINISHED"}
        trials = self.trials(sweep)
        return {run.data.params["config_id"]: {name: run.data.metrics[name] for name in FIGURES} for run in trials}


def until(process: subprocess.Popen[str], told: str) -> None:
    """Wait for a line that tells this."""
    assert process.stdout is not None
    printed = []
    for line in process.stdout:
        printed.append(line)
        if told in line:
            return
    raise AssertionError("".join(printed))


def ended(process: subprocess.Popen[str], status: int = 0) -> str:
    """What is left to read of a program, once it has ended as it must."""
    printed, _ = process.communicate(timeout=1800)
    assert process.returncode == status, printed
    return printed
