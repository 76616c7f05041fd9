"""A sweep that ends before its trials do, and is gone on with: no trial lost, doubled or left running, same numbers."""

from __future__ import annotations

import signal
from pathlib import Path

import optuna
import pytest

from sweeps.study import study_storage
from tests.smoke.servers import kill
from tests.smoke.workspace import Workspace, ended, until

pytestmark = pytest.mark.smoke

SWEEP = {"trials": 3, "at_once": 1}


def test_interrupted_then_killed_and_gone_on_with_equals_an_undisturbed_sweep(workspace: Workspace) -> None:
    workspace.run("run", str(workspace.write_spec("calm", **SWEEP)))
    spec = workspace.write_spec("rough", **SWEEP, more="storage: elsewhere\n")  # nothing of the calm sweep is there

    with workspace.running("run", str(spec)) as interrupted:
        until(interrupted, "1/3 done")
        interrupted.send_signal(signal.SIGTERM)  # taken like Ctrl-C
        printed = ended(interrupted, status=1)
    assert f"rough: interrupted with 1 of 3 trials done; go on with `sweeps run {spec} --resume`" in printed

    with workspace.running("run", str(spec), "--resume") as killed:
        until(killed, "  trial 1 finished")
        kill(killed)

    printed = workspace.run("run", str(spec), "--resume")
    assert "  trial 2 finished" in printed
    assert "3 finished" in printed
    assert len(workspace.figures("calm")) == 3
    assert workspace.figures("rough") == workspace.figures("calm")
    study = optuna.load_study(
        study_name="rough", storage=study_storage(Path(workspace.folder, "elsewhere/sweeps/rough"))
    )
    states = [trial.state.name for trial in study.trials]
    assert states.count("COMPLETE") == 3
    assert "RUNNING" not in states
