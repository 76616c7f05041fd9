"""A driver killed in mid-sweep, and the sweep gone on with: no trial lost, doubled or left running."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient

from sweeps.searcher import study_url
from tests.smoke.conftest import Workspace

pytestmark = pytest.mark.smoke

SWEEP = {"trials": 3, "at_once": 1}


def records(workspace: Workspace, name: str) -> dict[str, dict[str, float]]:
    """The final figures of each trial by its parameters' id."""
    client = MlflowClient(workspace.tracking_uri)
    experiment = client.get_experiment_by_name(name)
    runs = client.search_runs([experiment.experiment_id], "tags.level = 'trial' and tags.role = 'search'")
    assert all(run.info.status == "FINISHED" for run in runs)
    figures = ("ap_all", "ap_old", "ap_new", "loss_cls", "loss_dist_cls")
    return {run.data.params["config_id"]: {name: run.data.metrics[name] for name in figures} for run in runs}


def test_killed_and_resumed_equals_undisturbed(workspace: Workspace) -> None:
    calm = workspace.write_spec("calm", **SWEEP)
    killed = workspace.write_spec("killed", **SWEEP, more="storage: elsewhere\n")  # nothing of the calm sweep is there
    workspace.run("run", str(calm))
    process = workspace.start("run", str(killed))
    for line in process.stdout:
        if "1/3 done" in line:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()

    printed = workspace.run("run", str(killed), "--resume")
    assert "3 finished" in printed
    assert records(workspace, "killed") == records(workspace, "calm")
    assert len(records(workspace, "killed")) == 3
    study = optuna.load_study(study_name="killed", storage=study_url(Path(workspace.folder, "elsewhere/sweeps/killed")))
    states = [trial.state.name for trial in study.trials]
    assert states.count("COMPLETE") == 3
    assert "RUNNING" not in states
    assert "3 finished" in workspace.run("run", str(killed), "--resume")
