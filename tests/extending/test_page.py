"""The page shows the examples as they are; who does what it says has them in checks, in workers and in the records."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from tests.extending import data_set
from tests.extending.page import FILES, PAGE, YAML, extended

EXAMPLES = ("method", "detector", "data_set", "metric")
SWEEP: dict[str, Any] = {
    "name": "shapes",
    "detector": "gfl_mobile_tiny",
    "method": "soft_targets",
    "search": {"w_soft": "declared", "T": [1.0, 4.0]},
    "training": {"base_epochs": 1, "epochs": 1, "batch_size": 8},
    "objective": "ap_worst",
    "constraints": ["ap_worst >= 0.0"],
    "trials": 2,
    "compare": ["replay-soft_targets"],
    **yaml.safe_load(YAML),
}
SWEEPS = """
import json, sys
from sweeps.cli import main
main(standalone_mode=False)
print(json.dumps(sorted({"mlflow", "mmdet", "ray", "torch"} & set(sys.modules))))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the sweep file, its data, and beside them the clone."""
    extended(tmp_path / "clone")
    data_set.write(tmp_path / "shapes", {"train": 48, "test": 8})
    (tmp_path / "shapes.yaml").write_text(yaml.safe_dump(SWEEP), encoding="utf-8")
    return tmp_path


def sweeps(folder: Path, *arguments: str) -> list[str]:
    """The lines that the clone's `sweeps ...` prints, and then which heavy packages it loaded."""
    done = subprocess.run(
        [sys.executable, "-c", SWEEPS, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder / "clone"), "COLUMNS": "160"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_shown_whole_and_fits_a_screen(name: str) -> None:
    text = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    assert f"```python\n{text}```" in PAGE
    assert [shown for shown in FILES.values() if shown == text] == [text]
    assert len(FILES) == len(EXAMPLES)
    assert len(text.splitlines()) <= 45


def test_a_clone_knows_them_and_loads_nothing_heavy_for_it(folder: Path) -> None:
    told, *_, loaded = sweeps(folder, "check", "shapes.yaml")
    assert told == "shapes.yaml: good. 2 trials of soft_targets on shapes, gfl_mobile_tiny"
    assert json.loads(loaded) == []


@pytest.mark.smoke
def test_a_sweep_runs_with_all_of_them(folder: Path) -> None:
    assert any("2 finished" in line for line in sweeps(folder, "run", "shapes.yaml"))
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (sweep,) = client.search_experiments(filter_string="name = 'shapes'")
    runs = client.search_runs([sweep.experiment_id])
    last = [run.data.metrics for run in runs if run.data.tags["level"] == "step" and run.data.tags["step"] == "1"]
    assert len(last) == 2
    assert all(metrics["loss_soft"] > 0 and 0 <= metrics["ap_worst"] <= metrics["ap_all"] for metrics in last)
    trials = [run.data.params for run in runs if run.data.tags["level"] == "trial"]
    assert len({params["soft_targets/w_soft"] for params in trials}) == 2
