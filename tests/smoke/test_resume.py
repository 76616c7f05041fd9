"""A sweep that ends before its trials do, and is gone on with: no trial lost, doubled or left running, same numbers."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient

from sweeps.study import study_storage
from tests.smoke.conftest import Workspace

pytestmark = pytest.mark.smoke

SWEEP = {"trials": 3, "at_once": 1}
Figures = dict[str, dict[str, float]]


def figures(workspace: Workspace, name: str) -> Figures:
    """The final figures of each trial by its configuration; every run has ended."""
    client = MlflowClient(workspace.tracking_uri)
    experiment = client.get_experiment_by_name(name)
    runs = client.search_runs([experiment.experiment_id])
    assert all(run.info.status == "FINISHED" for run in runs)
    trials = [run for run in runs if run.data.tags["level"] == "trial"]
    names = ("ap_all", "ap_old", "ap_new", "loss_cls", "loss_dist_cls")
    return {run.data.params["config_id"]: {name: run.data.metrics[name] for name in names} for run in trials}


def until(process: subprocess.Popen[str], told: str) -> None:
    """Wait for a line that tells this."""
    assert process.stdout is not None
    printed = []
    for line in process.stdout:
        printed.append(line)
        if told in line:
            return
    raise AssertionError("".join(printed))


def test_interrupted_then_killed_and_gone_on_with_equals_an_undisturbed_sweep(workspace: Workspace) -> None:
    workspace.run("run", str(workspace.write_spec("calm", **SWEEP)))
    spec = workspace.write_spec("rough", **SWEEP, more="storage: elsewhere\n")  # nothing of the calm sweep is there

    interrupted = workspace.start("run", str(spec))
    until(interrupted, "1/3 done")
    interrupted.send_signal(signal.SIGTERM)  # taken like Ctrl-C
    printed, _ = interrupted.communicate(timeout=120)
    assert interrupted.returncode == 1, printed
    assert "rough: interrupted with 1 of 3 trials done; go on with `sweeps run FILE --resume`" in printed

    killed = workspace.start("run", str(spec), "--resume")
    until(killed, "2/3 done")
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()

    assert "3 finished" in workspace.run("run", str(spec), "--resume")
    assert len(figures(workspace, "calm")) == 3
    assert figures(workspace, "rough") == figures(workspace, "calm")
    study = optuna.load_study(
        study_name="rough", storage=study_storage(Path(workspace.folder, "elsewhere/sweeps/rough"))
    )
    states = [trial.state.name for trial in study.trials]
    assert states.count("COMPLETE") == 3
    assert "RUNNING" not in states
