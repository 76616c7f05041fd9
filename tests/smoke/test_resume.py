"""A sweep that ends before its trials do, and is gone on with: no trial lost, doubled or left running, same numbers."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient

from sweeps.searcher import study_url
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


def one_trial_done(process: subprocess.Popen[str]) -> None:
    """Wait until the first of three trials has ended; the second is under way."""
    assert process.stdout is not None
    printed = []
    for line in process.stdout:
        printed.append(line)
        if "1/3 done" in line:
            return
    raise AssertionError("".join(printed))


@pytest.fixture(scope="module")
def undisturbed(workspace: Workspace) -> Figures:
    workspace.run("run", str(workspace.write_spec("calm", **SWEEP)))
    return figures(workspace, "calm")


@pytest.mark.parametrize("how", ["killed", "interrupted"])
def test_gone_on_with_it_equals_an_undisturbed_sweep(workspace: Workspace, undisturbed: Figures, how: str) -> None:
    storage = f"storage: of-{how}\n"  # nothing that another sweep has trained is there
    spec = workspace.write_spec(how, **SWEEP, more=storage)
    process = workspace.start("run", str(spec))
    one_trial_done(process)
    if how == "killed":
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    else:
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=120)
        assert process.returncode == 1, printed
        assert f"{how}: interrupted with 1 of 3 trials done; go on with `sweeps run FILE --resume`" in printed

    assert "3 finished" in workspace.run("run", str(spec), "--resume")
    assert len(undisturbed) == 3
    assert figures(workspace, how) == undisturbed
    study = optuna.load_study(study_name=how, storage=study_url(Path(workspace.folder, f"of-{how}/sweeps/{how}")))
    states = [trial.state.name for trial in study.trials]
    assert states.count("COMPLETE") == 3
    assert "RUNNING" not in states
    assert "3 finished" in workspace.run("run", str(spec), "--resume")  # nothing is left to do
