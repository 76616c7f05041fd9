"""One sweep from its file to a registered champion, read back through MLflow's and Optuna's own doors."""

from __future__ import annotations

import base64
import csv
import json
import math
import re
from collections import defaultdict
from pathlib import Path
from urllib.request import Request, urlopen

import cv2
import mlflow
import optuna
import pytest
import torch
import yaml
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run

from sweeps.spec import stored_spec
from sweeps.study import study_storage
from sweeps.work import prepared
from tests.records import artifact, artifacts, points, runs_of, the_run
from tests.smoke.servers import answer, free_port, model_server
from tests.smoke.workspace import Workspace
from trainables import pipelines
from trainables.catalog import DETECTORS
from trainables.datasets.detection import DetectionDataset
from trainables.export import load_exported
from trainables.prediction import predict

pytestmark = pytest.mark.smoke

CHAMPION = "models:/digits-5+5.gfl_r18_tiny@champion"
DEFAULTS = {"erd/lambda_cls": 1.0, "erd/alpha_cls": 2.0, "optim/lr_scale": 1.0}

OURS = (
    r"trial 0: learning rate|\w+: a table of|reference [a-z ]+: done|  trial \d finished  |small: |core-hours: |next: "
)


@pytest.fixture(scope="module")
def swept(workspace: Workspace) -> Workspace:
    printed = workspace.run("run", str(workspace.write_spec("small")))
    assert "2 finished" in printed
    assert [line for line in printed.splitlines() if not re.match(OURS, line)] == []
    return workspace


@pytest.fixture(scope="module")
def runs(swept: Workspace) -> dict[str, list[Run]]:
    by_level = defaultdict(list)
    for run in runs_of(swept.tracking_uri, sweep="small"):
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
    assert first.info.run_name == "trial 0: lambda_cls 1, alpha_cls 2, lr_scale 1"


def test_every_step_is_recorded_on_its_trial_and_on_its_own_run(swept: Workspace, runs: dict[str, list[Run]]) -> None:
    trials = {run.info.run_id: run for run in runs["trial"]}
    for step in runs["step"]:
        trial, index = trials[step.data.tags["mlflow.parentRunId"]], int(step.data.tags["step"])
        assert dict(points(swept.tracking_uri, trial, "ap_all"))[index] == step.data.metrics["ap_all"]
        assert {"time_train_s", "images_train", "peak_memory_mb", "loss_cls", "params_total"} <= set(step.data.metrics)
        assert ("loss_dist_cls" in step.data.metrics) == (index == 1)
        rows = list(csv.DictReader(artifact(swept.tracking_uri, step, "classes.csv").splitlines()))
        assert [row["class"] for row in rows] == list("0123456789")[: 5 * (index + 1)]
        assert step.info.run_name == f"step {index + 1}: {', '.join(['0123456789'[:5], '0123456789'[5:]][index])}"
        tables, pictures = {"classes.csv", "ap_matrix.json"}, {"ap.png", "boxes.jpg"}
        assert artifacts(swept.tracking_uri, step) == tables | (pictures if index else set())
        known = [float(row["ap"]) for row in rows if row["ap"]]
        assert math.isclose(sum(known) / len(known), step.data.metrics["ap_all"], abs_tol=1e-12)


def test_the_sweep_run_tells_spec_versions_references_and_cost(swept: Workspace, runs: dict[str, list[Run]]) -> None:
    (sweep,) = runs["sweep"]
    assert yaml.safe_load(artifact(swept.tracking_uri, sweep, "spec.yaml"))["name"] == "small"
    assert sweep.data.tags["version/torch"].startswith("2.13")
    assert "`sweeps promote small`" in sweep.data.tags["mlflow.note.content"]
    assert {"reference/joint/ap_all", "reference/finetune/ap_old", "trials_finished"} <= set(sweep.data.metrics)
    assert sweep.data.metrics["core_hours_spent"] > 0
    assert sweep.data.metrics["core_hours_saved"] > 0  # the base step was trained once for both


def test_the_study_knows_each_trial_once(swept: Workspace) -> None:
    folder = swept.folder / "runs" / "sweeps" / "small"
    study = optuna.load_study(study_name="small", storage=study_storage(folder))
    copy = optuna.load_study(study_name="small", storage=f"sqlite:///{folder}/study.db")  # which the dashboard opens
    assert study.metric_names == copy.metric_names == ["ap_all"]
    assert [trial.values for trial in study.trials] == [trial.values for trial in copy.trials]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE"]
    assert study.trials[0].params == DEFAULTS


def test_show_prints_every_trial(swept: Workspace) -> None:
    printed = swept.run("show", "small")
    assert printed.count("finished") == 2


def test_sync_writes_all_that_is_not_known_to_be_written(swept: Workspace, runs: dict[str, list[Run]]) -> None:
    (swept.folder / "runs" / "sweeps" / "small" / "records.position").unlink()
    written = re.search(r"small: (\d+) records written, none waits", swept.run("sync", "small"))
    assert written
    assert int(written[1]) > 10
    assert "small: 0 records written, none waits" in swept.run("sync", "small")
    known = {run.info.run_id: run.data.metrics for level in runs.values() for run in level}
    assert {run.info.run_id: run.data.metrics for run in runs_of(swept.tracking_uri, sweep="small")} == known


def test_store_shows_what_trials_share_and_prunes_nothing_that_is_in_use(swept: Workspace) -> None:
    shown = swept.run("store", "--kind", "steps")
    assert str(swept.folder / "runs" / "store") in shown
    assert "step 1 of digits 5, gfl_r18_tiny, 1 epochs" in shown
    assert "removed 0 entries, 0 B" in swept.run("store", "--prune", "1")
    assert swept.run("store", "--kind", "steps").count("gfl_r18_tiny") == shown.count("gfl_r18_tiny")


def test_ui_serves_the_workspaces_records(swept: Workspace) -> None:
    port = free_port()
    with swept.running("ui", "--port", str(port)) as server:
        url = f"http://127.0.0.1:{port}"
        assert b"<title>MLflow" in answer(server, url)
        found = answer(server, f"{url}/api/2.0/mlflow/experiments/get-by-name?experiment_name=small")
    assert json.loads(found)["experiment"]["lifecycle_stage"] == "active"


def test_what_packages_say_is_in_logs_of_trials_and_references(swept: Workspace) -> None:
    folder = swept.folder / "runs" / "sweeps" / "small"
    logs = {path.name: path.read_text() for path in folder.glob("logs/*")}
    assert set(logs) == {"base_step.txt", "joint.txt", "tables.txt", "finetune.txt"}
    of_trials = [path.read_text() for path in folder.glob("trials/*/log.txt")]
    assert len(of_trials) == 2
    assert "OneDL" in "".join([*logs.values(), *of_trials])  # which mmdet misses


def test_a_sweep_is_not_started_twice(swept: Workspace) -> None:
    assert "--resume" in swept.run("run", str(swept.folder / "small.yaml"), status=1)


@pytest.fixture(scope="module")
def promoted(swept: Workspace) -> Workspace:
    printed = swept.run("promote", "small")
    assert "first champion, with ap_all" in printed
    assert f"mlflow.pyfunc.load_model('{CHAMPION}')" in printed
    return swept


@pytest.fixture
def champion(promoted: Workspace, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its checkpoint, as a person finds it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", promoted.tracking_uri)
    (file,) = Path(download_artifacts(CHAMPION)).rglob("*.pth")
    return file


def test_the_champion_is_a_student_alone(champion: Path) -> None:
    saved = torch.load(champion, weights_only=True)
    assert saved["meta"]["classes"] == list("0123456789")
    assert sum(tensor.numel() for tensor in saved["state_dict"].values()) < 800_000


def test_the_registry_says_where_the_champion_comes_from(promoted: Workspace) -> None:
    client = MlflowClient(promoted.tracking_uri, promoted.tracking_uri)
    version = client.get_model_version_by_alias("digits-5+5.gfl_r18_tiny", "champion")
    assert {"config_id", "scenario", "detector", "method", "sweep", "test_data"} <= set(version.tags)
    lines = version.description.splitlines()
    assert f"| config_id | `{version.tags['config_id']}` |" in lines
    assert f"| test annotations | `{version.tags['test_data']}` |" in lines
    assert {"this version, seed 0", "joint", "finetune", "best found"} <= {
        line[2:].partition(" |")[0] for line in lines
    }


def test_promoting_again_changes_nothing_and_leaves_the_sweep_as_it_was(promoted: Workspace) -> None:
    uri = promoted.tracking_uri
    sweep = the_run(uri, sweep="small", level="sweep")
    MlflowClient(uri).set_tag(sweep.info.run_id, "verdict", "stopped")  # as of a sweep that was interrupted
    assert "is the champion already" in promoted.run("promote", "small")
    assert len(runs_of(uri, sweep="small", role="final")) == 2
    after = the_run(uri, sweep="small", level="sweep")
    assert (after.data.tags["verdict"], after.info.end_time) == ("stopped", sweep.info.end_time)
    assert {"joint", "finetune", "best found"} <= set(json.loads(artifact(uri, after, "result.json"))["digits/5+5"])
    assert "best found" in artifact(uri, after, "report.html")


def test_the_champion_detects_without_this_projects_names(
    promoted: Workspace, champion: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = prepared(stored_spec("small", promoted.folder / "runs")).test
    names, images = tuple("0123456789"), split.coco["images"]
    detector = load_exported(champion)
    dataset = DetectionDataset(
        split.coco, split.images, names, pipelines.test_pipeline(DETECTORS["gfl_r18_tiny"].recipe), test_mode=True
    )
    expected = predict(detector, dataset, range(10), 1)
    paths = [split.images / image["file_name"] for image in images]
    model, contents = mlflow.pyfunc.load_model(CHAMPION), [path.read_bytes() for path in paths]
    found = model.predict({"image": contents})
    assert len(expected) > 0
    assert [(row["image_id"], row["bbox"], row["score"], str(row["category_id"])) for row in expected] == [
        (image["id"], [x1, y1, x2 - x1, y2 - y1], score, name)
        for image, one in zip(images, found, strict=True)
        for (x1, y1, x2, y2), score, name in zip(one["boxes"], one["scores"], one["classes"], strict=True)
    ]
    assert model.predict({"image": [cv2.imread(str(path))[..., ::-1] for path in paths]}) == found
    assert len(model.predict(model.input_example)) == 1

    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))  # they decide the last bits
    port = free_port()
    with model_server(CHAMPION, port, promoted.folder, promoted.tracking_uri):
        texts = [base64.b64encode(content).decode() for content in contents]
        for body in ({"inputs": texts}, {"dataframe_split": {"columns": ["image"], "data": [[one] for one in texts]}}):
            request = Request(f"http://127.0.0.1:{port}/invocations", json.dumps(body).encode())
            request.add_header("Content-Type", "application/json")
            with urlopen(request, timeout=60) as said:
                assert json.load(said)["predictions"] == found


def test_a_trial_that_explodes_fails_alone_and_says_why(swept: Workspace) -> None:
    spec = swept.write_spec("explosive", trials=3)
    spec.write_text(spec.read_text().replace("lr_scale: declared", "lr_scale: [1.0, 1.0e+38]"))
    printed = swept.run("run", str(spec))
    first, *others = swept.trials("explosive")
    assert first.data.tags["verdict"] == "finished"
    failed = [run for run in others if run.data.tags["verdict"] == "failed"]
    assert failed, printed
    for run in failed:
        assert run.info.status == "FAILED"
        assert "step 2, iteration" in run.data.tags["message"]
        assert "must be finite, but" in run.data.tags["message"]


@pytest.mark.long
def test_a_trial_whose_objective_is_undefined_has_failed(swept: Workspace) -> None:
    spec = swept.write_spec("undefined", trials=1, more="objective: ap_large\n")  # no digit is that large
    printed = swept.run("run", str(spec), status=1)
    assert "undefined: 1 failed" in printed
    assert "every trial failed; when that is mended, start it under another name\n  trial 0: every objective" in printed
    (trial,) = swept.trials("undefined")
    assert (trial.info.status, trial.data.tags["verdict"]) == ("FAILED", "failed")
    assert "objective" in trial.data.tags["message"]


def test_data_shows_what_each_step_sees(swept: Workspace) -> None:
    printed = swept.run("data", str(swept.folder / "small.yaml"))
    assert "24 tune images" in printed
    assert "5, 6, 7, 8, 9" in printed


def test_debug_runs_trial_zero_without_ray(swept: Workspace) -> None:
    printed = swept.run("debug", str(swept.folder / "small.yaml"))
    assert "step 2, progress 2: AP all" in printed


@pytest.mark.long
def test_the_demo_searches_and_promotes_and_is_gone_on_with(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    printed = workspace.run("demo")
    assert "first champion" in printed
    assert "uv run sweeps ui" in printed
    assert len(workspace.trials("demo")) == 8
    assert "is the champion already" in workspace.run("demo")
