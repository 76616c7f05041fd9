"""Sweeps that really run, in processes of their own, on few and small digit scenes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

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


@dataclass(frozen=True)
class Workspace:
    """A folder in which a person runs sweeps."""

    folder: Path

    def write_spec(self, name: str, trials: int = 2, at_once: int = 2, scheduler: str = "none", more: str = "") -> Path:
        """A sweep file."""
        path = self.folder / f"{name}.yaml"
        path.write_text(SPEC.format(name=name, trials=trials, at_once=at_once, scheduler=scheduler) + more)
        return path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """`sweeps ...` under way, in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-c", "from sweeps.cli import main; main()", *arguments],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "160"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, status: int = 0) -> str:
        """What `sweeps ...` prints."""
        process = self.start(*arguments)
        printed, _ = process.communicate(timeout=600)
        assert process.returncode == status, printed
        return printed

    @property
    def tracking_uri(self) -> str:
        """The workspace's MLflow."""
        return f"sqlite:///{self.folder / 'mlflow.db'}"


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("workspace"))
