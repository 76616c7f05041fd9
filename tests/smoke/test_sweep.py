"""One sweep from its file to a registered champion, read back through MLflow's and Optuna's own doors."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from pathlib import Path

import optuna
import pytest
import torch
import yaml
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run

from sweeps.study import study_storage
from tests.smoke.conftest import Workspace

pytestmark = pytest.mark.smoke

DEFAULTS = {"erd/lambda_cls": 1.0, "erd/alpha_cls": 2.0, "optim/lr_scale": 1.0}


def artifact(workspace: Workspace, run: Run, name: str) -> str:
    """The text of a run's artifact."""
    uri = workspace.tracking_uri
    return Path(download_artifacts(run_id=run.info.run_id, artifact_path=name, tracking_uri=uri)).read_text()


@pytest.fixture(scope="module")
def swept(workspace: Workspace) -> Workspace:
    printed = workspace.run("run", str(workspace.write_spec("small")))
    assert "2 finished" in printed
    return workspace


@pytest.fixture(scope="module")
def runs(swept: Workspace) -> dict[str, list[Run]]:
    client = MlflowClient(swept.tracking_uri)
    experiment = client.get_experiment_by_name("small")
    by_level = defaultdict(list)
    for run in client.search_runs([experiment.experiment_id]):
        by_level[run.data.tags["level"]].append(run)
    return by_level


def test_runs_nest_and_none_is_left_running(runs: dict[str, list[Run]]) -> None:
    (sweep,) = runs["sweep"]
    trials = {run.info.run_id for run in runs["trial"]}
    assert len(trials) == 2
    assert {run.data.tags["mlflow.parentRunId"] for run in runs["trial"]} == {sweep.info.run_id}
    parents = [run.data.tags["mlflow.parentRunId"] for run in runs["step"]]
    assert sorted(parents) == sorted([*trials, *trials])  # two steps each
    assert all(run.info.status == "FINISHED" for level in runs.values() for run in level)


def test_trial_zero_is_the_methods_defaults(runs: dict[str, list[Run]]) -> None:
    (first,) = [run for run in runs["trial"] if run.data.tags["number"] == "0"]
    assert {name: float(first.data.params[name]) for name in DEFAULTS} == DEFAULTS
    assert len({run.data.params["config_id"] for run in runs["trial"]}) == 2


def test_every_step_is_recorded_on_its_trial_and_on_its_own_run(swept: Workspace, runs: dict[str, list[Run]]) -> None:
    client = MlflowClient(swept.tracking_uri)
    for step in runs["step"]:
        trial, index = step.data.tags["mlflow.parentRunId"], int(step.data.tags["step"])
        history = {metric.step: metric.value for metric in client.get_metric_history(trial, "ap_all")}
        assert history[index] == step.data.metrics["ap_all"]
        assert {"time_train_s", "images_train", "peak_memory_mb", "loss_cls", "params_total"} <= set(step.data.metrics)
        assert ("loss_dist_cls" in step.data.metrics) == (index == 1)
        rows = list(csv.DictReader(artifact(swept, step, "classes.csv").splitlines()))
        assert [row["class"] for row in rows] == list("0123456789")[: 5 * (index + 1)]
        known = [float(row["ap"]) for row in rows if row["ap"]]
        assert math.isclose(sum(known) / len(known), step.data.metrics["ap_all"], abs_tol=1e-12)


def test_the_sweep_run_tells_spec_versions_references_and_cost(swept: Workspace, runs: dict[str, list[Run]]) -> None:
    (sweep,) = runs["sweep"]
    assert yaml.safe_load(artifact(swept, sweep, "spec.yaml"))["name"] == "small"
    assert sweep.data.tags["version/torch"].startswith("2.13")
    assert {"reference/joint/ap_all", "reference/finetune/ap_old", "trials_finished"} <= set(sweep.data.metrics)
    assert sweep.data.metrics["core_hours_spent"] > 0
    assert sweep.data.metrics["core_hours_saved"] > 0  # the base step was trained once for both


def test_the_study_knows_each_trial_once(swept: Workspace) -> None:
    study = optuna.load_study(study_name="small", storage=study_storage(swept.folder / "runs" / "sweeps" / "small"))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE"]
    assert study.trials[0].params == DEFAULTS


def test_show_prints_every_trial(swept: Workspace) -> None:
    printed = swept.run("show", "small")
    assert printed.count("finished") == 2


def test_a_sweep_is_not_started_twice(swept: Workspace) -> None:
    assert "--resume" in swept.run("run", str(swept.folder / "small.yaml"), status=1)


def test_the_champion_is_a_student_alone(swept: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", swept.tracking_uri)  # as a person would who loads the champion
    printed = swept.run("promote", "small")
    assert "first champion" in printed
    client = MlflowClient(swept.tracking_uri, swept.tracking_uri)
    version = client.get_model_version_by_alias("digits-5+5.gfl_r18_tiny", "champion")
    assert {"config_id", "scenario", "detector", "method"} <= set(version.tags)
    folder = Path(download_artifacts("models:/digits-5+5.gfl_r18_tiny@champion"))
    (file,) = folder.rglob("*.pth")
    saved = torch.load(file, weights_only=True)
    assert saved["meta"]["classes"] == list("0123456789")
    assert sum(tensor.numel() for tensor in saved["state_dict"].values()) < 800_000
    again = swept.run("promote", "small")
    assert "is the champion already" in again
    experiment = [client.get_experiment_by_name("small").experiment_id]
    assert len(client.search_runs(experiment, "tags.role = 'final'")) == 2
    (sweep,) = client.search_runs(experiment, "tags.level = 'sweep'")
    assert {"joint", "finetune", "best found"} <= set(json.loads(artifact(swept, sweep, "result.json"))["digits/5+5"])
    assert "best found" in artifact(swept, sweep, "report.html")


def test_a_trial_that_explodes_fails_alone_and_says_why(swept: Workspace) -> None:
    spec = swept.write_spec("explosive", trials=3)
    spec.write_text(spec.read_text().replace("lr_scale: declared", "lr_scale: [1.0, 1.0e+38]"))
    printed = swept.run("run", str(spec))
    client = MlflowClient(swept.tracking_uri)
    experiment = client.get_experiment_by_name("explosive")
    trials = {
        run.data.tags["number"]: run for run in client.search_runs([experiment.experiment_id], "tags.level = 'trial'")
    }
    assert trials["0"].data.tags["verdict"] == "finished"
    failed = [run for run in trials.values() if run.data.tags["verdict"] == "failed"]
    assert failed, printed
    for run in failed:
        assert run.info.status == "FAILED"
        assert "step 2, iteration" in run.data.tags["message"]
        assert "must be finite, but" in run.data.tags["message"]


def test_a_trial_whose_objective_is_undefined_has_failed(swept: Workspace) -> None:
    spec = swept.write_spec("undefined", trials=1, more="objective: ap_large\n")  # no digit is that large
    printed = swept.run("run", str(spec), status=1)
    assert "undefined: 1 failed" in printed
    assert "every trial failed; when that is mended, start it under another name\n  trial 0: every objective" in printed
    client = MlflowClient(swept.tracking_uri)
    experiment = client.get_experiment_by_name("undefined")
    (trial,) = client.search_runs([experiment.experiment_id], "tags.level = 'trial'")
    assert (trial.info.status, trial.data.tags["verdict"]) == ("FAILED", "failed")
    assert "objective" in trial.data.tags["message"]


def test_data_shows_what_each_step_sees(swept: Workspace) -> None:
    printed = swept.run("data", str(swept.folder / "small.yaml"))
    assert "24 tune images" in printed
    assert "5, 6, 7, 8, 9" in printed


def test_debug_runs_trial_zero_without_ray(swept: Workspace) -> None:
    printed = swept.run("debug", str(swept.folder / "small.yaml"))
    assert "step 2, progress 2: AP all" in printed
