"""The records of a sweep, read back from a real MLflow: nesting, replays, killed drivers, limits, outages."""

from __future__ import annotations

import csv
import json
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from sweeps.connection import TrackingError, connect
from sweeps.runs import NAME_CHARS, NOTE, Runs
from tests.records import artifact, artifacts, points, runs_of, the_run
from tests.sweeps.events import MATRIX, METRICS, PARAMS, SCOPE, T0, TABLE
from trainables.records import PICTURE_FILE
from trainables.store import Store


def run_trial(runs: Runs, trial_id: str = "t1", *, num_steps: int = 2, at_ms: int = T0) -> None:
    runs.start_trial(trial_id, PARAMS, SCOPE, at_ms)
    for step in range(num_steps):
        runs.log_epoch(trial_id, {"loss": 2.0 - step}, progress=step + 1, timestamp_ms=at_ms + 10 * step)
        runs.log_step(trial_id, step, METRICS, at_ms + 10 * step + 5, TABLE, MATRIX)


def run_sweep(uri: str, *, at_ms: int = T0) -> Runs:
    runs = Runs(uri, "erd digits")
    runs.start_sweep("name: erd digits\n", SCOPE, at_ms)
    run_trial(runs, at_ms=at_ms)
    runs.end_trial("t1", "finished", at_ms + 100)
    runs.log_reference("joint", {"ap_all": 0.9}, step=1)
    runs.end_sweep("finished", {"hours": 0.1, "trials_finished": 1}, at_ms + 200)
    return runs


def test_runs_nest_and_carry_their_tags(uri: str) -> None:
    run_sweep(uri)
    sweep, trial = the_run(uri, level="sweep"), the_run(uri, level="trial")
    step = the_run(uri, level="step", step="1")
    assert len(runs_of(uri)) == 4
    assert trial.data.tags["mlflow.parentRunId"] == sweep.info.run_id
    assert step.data.tags["mlflow.parentRunId"] == trial.info.run_id
    for run in (sweep, trial, step):
        assert {**SCOPE, "sweep": "erd digits"}.items() <= run.data.tags.items()
        assert run.info.status == "FINISHED"
    assert step.data.tags["trial_id"] == trial.data.tags["trial_id"] == "t1"
    assert "step" not in trial.data.tags
    assert trial.data.tags["verdict"] == "finished"


def test_a_trial_holds_params_curves_and_the_metrics_of_each_step(uri: str) -> None:
    run_sweep(uri)
    trial = the_run(uri, level="trial")
    assert trial.data.params == {"erd/lambda_cls": "1.0", "optim/lr_scale": "0.5", "seed": "0", "config_id": "0123"}
    assert points(uri, trial, "epoch/loss") == [(1, 2.0), (2, 1.0)]
    assert points(uri, trial, "ap_all") == [(0, 0.4), (1, 0.4)]
    assert "ap_old" not in trial.data.metrics


def test_a_step_holds_its_metrics_table_and_matrix(uri: str, database: Path) -> None:
    run_sweep(uri)
    step = the_run(uri, level="step", step="1")
    assert step.data.metrics == {"ap_all": 0.4, "loss_cls": 0.7}
    matrix = {"classes": ["car", "bus"], "ap": [[0.4, None], [0.3, 0.5]]}
    assert json.loads(artifact(uri, step, "ap_matrix.json")) == matrix
    rows = list(csv.DictReader(artifact(uri, step, "classes.csv").splitlines()))
    assert rows[0] == {"class": "car", "step": "1", "ap": "0.4", "ap_small": ""}
    assert (database.parent / "mlartifacts" / step.info.run_id / "artifacts" / "classes.csv").is_file()


def test_the_sweep_holds_spec_versions_references_and_texts(uri: str) -> None:
    runs = run_sweep(uri)
    runs.log_text("# Report", "report.md")
    sweep = the_run(uri, level="sweep")
    assert artifact(uri, sweep, "spec.yaml") == "name: erd digits\n"
    assert artifact(uri, sweep, "report.md") == "# Report"
    assert sweep.data.tags["version/mlflow"].startswith("3.")
    assert points(uri, sweep, "reference/joint/ap_all") == [(1, 0.9)]
    assert sweep.data.metrics["trials_finished"] == 1
    tags = connect(uri).get_experiment(runs.experiment_id).tags
    for view in ("finished", "trials"):
        assert f"](#/experiments/{runs.experiment_id}/runs?viewStateShareKey={view}&workflowType=" in tags[NOTE]
        assert json.loads(tags[f"mlflow.sharedViewState.{view}"])["orderByKey"] == "metrics.`ap_all`"


def test_runs_have_names_that_a_person_can_read(uri: str) -> None:
    runs = run_sweep(uri)
    assert the_run(uri, level="step", step="1").info.run_name == "step 2: bus"
    runs.log_step("t1", 1, METRICS, T0, TABLE, MATRIX, "digits/4+3+3")
    assert the_run(uri, step="digits/4+3+3:1").info.run_name == "digits/4+3+3, step 2: bus"
    runs.start_trial("t2", PARAMS, SCOPE, T0, f"trial 7: {', '.join(f'parameter_{i} 0.5' for i in range(9))}")
    name = the_run(uri, level="trial", trial_id="t2").info.run_name
    assert name.startswith("trial 7: parameter_0 0.5, parameter_1 0.5")
    assert name.endswith(" ...")
    assert len(name) <= NAME_CHARS


def test_a_step_that_its_trial_trained_has_pictures_as_far_as_the_store_has_them(uri: str, tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        (folder / PICTURE_FILE).write_bytes(b"a picture")

    store, scored = tmp_path / "store", {"step": 1}
    Store(store).get("scores", scored, build)
    for number, (root, identity) in enumerate([(store, scored), (store, {"step": 2}), (tmp_path / "none", scored)]):
        runs = Runs(uri, f"pictures {number}", root)
        runs.start_sweep("", SCOPE, T0)
        runs.start_trial("t1", PARAMS, SCOPE, T0)
        runs.log_step("t1", 0, METRICS, T0, TABLE, MATRIX)
        runs.log_step("t1", 1, METRICS, T0, TABLE, MATRIX, scored=identity)
        base, step = (the_run(uri, sweep=runs.sweep, level="step", step=index) for index in "01")
        tables = {"classes.csv", "ap_matrix.json"}
        assert [artifacts(uri, run) for run in (base, step)] == [
            tables,
            tables | {"ap.png"} | (set() if number else {PICTURE_FILE}),
        ]


@pytest.mark.parametrize("later_ms", [0, 60_000])
def test_a_replay_leaves_one_copy(uri: str, later_ms: int) -> None:
    run_sweep(uri)
    run_sweep(uri, at_ms=T0 + later_ms)
    assert len(runs_of(uri)) == 4
    trial, sweep = the_run(uri, level="trial"), the_run(uri, level="sweep")
    assert points(uri, trial, "epoch/loss") == [(1, 2.0), (2, 1.0)]
    assert points(uri, trial, "ap_all") == [(0, 0.4), (1, 0.4)]
    assert points(uri, the_run(uri, level="step", step="0"), "ap_all") == [(0, 0.4)]
    assert points(uri, sweep, "reference/joint/ap_all") == [(1, 0.9)]


def test_a_step_trained_again_with_other_numbers_shows_the_new_ones(uri: str) -> None:
    runs = run_sweep(uri)
    runs.log_step("t1", 1, {**METRICS, "ap_all": 0.2}, T0 + 1000, TABLE, MATRIX)
    assert the_run(uri, level="trial").data.metrics["ap_all"] == 0.2
    assert the_run(uri, level="step", step="1").data.metrics["ap_all"] == 0.2


def test_after_a_killed_driver_the_same_runs_go_on(uri: str) -> None:
    killed = Runs(uri, "erd digits")
    killed.start_sweep("name: erd digits\n", SCOPE, T0)
    run_trial(killed, "t1", num_steps=1)
    run_trial(killed, "t2", num_steps=1)
    before = {run.info.run_id for run in runs_of(uri)}
    assert the_run(uri, level="trial", trial_id="t1").info.status == "RUNNING"

    restored = Runs(uri, "erd digits")
    restored.start_sweep("name: erd digits\n", SCOPE, T0 + 1000)
    run_trial(restored, "t1", num_steps=2, at_ms=T0 + 1000)
    restored.end_trial("t1", "stopped", T0 + 2000)
    restored.end_sweep("finished", {}, T0 + 3000)

    new = {run.info.run_id for run in runs_of(uri)} - before
    assert new == {the_run(uri, level="step", trial_id="t1", step="1").info.run_id}
    assert Counter(run.info.status for run in runs_of(uri)) == {"FINISHED": 5, "FAILED": 1}
    assert the_run(uri, level="trial", trial_id="t1").data.tags["verdict"] == "stopped"
    left = the_run(uri, level="trial", trial_id="t2")
    assert (left.data.tags["verdict"], left.data.tags["message"]) == ("failed", "open when the sweep ended")


def test_metrics_of_a_sweep_leave_its_state_alone(uri: str) -> None:
    run_sweep(uri).start_sweep("", SCOPE, T0 + 300)
    Runs(uri, "erd digits").log_sweep({"final/ap_all": 0.5}, T0 + 400)
    sweep = the_run(uri, level="sweep")
    assert (sweep.info.status, sweep.data.metrics["final/ap_all"]) == ("RUNNING", 0.5)


def test_trials_that_the_search_forgot_go_with_their_steps(uri: str) -> None:
    runs = Runs(uri, "erd digits")
    runs.start_sweep("", SCOPE, T0)
    for trial_id, role in (("t1", "search"), ("t2", "search"), ("t1-seed-1", "race")):
        runs.start_trial(trial_id, PARAMS, {**SCOPE, "role": role}, T0)
        runs.log_step(trial_id, 0, METRICS, T0, TABLE, MATRIX)
    runs.keep_trials(["t2"])
    left = Counter(
        (run.data.tags["level"], run.data.tags["trial_id"]) for run in runs_of(uri) if "trial_id" in run.data.tags
    )
    assert left == {(level, trial_id): 1 for level in ("trial", "step") for trial_id in ("t2", "t1-seed-1")}
    Runs(uri, "erd digits").keep_trials(["t2"])  # another driver, when it is done already


def test_a_failed_trial_that_starts_again_is_running_again(uri: str) -> None:
    runs = Runs(uri, "s")
    runs.start_sweep("", SCOPE, T0)
    run_trial(runs, num_steps=1)
    runs.end_trial("t1", "failed", T0 + 50, message="CUDA out of memory")
    failed = the_run(uri, level="trial")
    assert (failed.info.status, failed.data.tags["verdict"]) == ("FAILED", "failed")
    assert failed.data.tags["message"] == "CUDA out of memory"
    runs.start_trial("t1", {**PARAMS, "seed": 1}, SCOPE, T0 + 60)
    again = the_run(uri, level="trial")
    assert again.info.status == "RUNNING"
    assert "verdict" not in again.data.tags
    assert "message" not in again.data.tags
    assert again.data.params["seed"] == "0"


def test_mlflows_limits_hold(uri: str) -> None:
    runs = Runs(uri, "s")
    runs.start_sweep("", SCOPE, T0)
    params = {f"method/p{i}": "x" * 7000 for i in range(120)}
    runs.start_trial("t1", params, {**SCOPE, "note": "y" * 9000}, T0)
    runs.log_step("t1", 0, {f"m{i}": float(i) for i in range(1700)}, T0, [], {})
    runs.end_trial("t1", "failed", T0, message="z" * 9000)
    trial, step = the_run(uri, level="trial"), the_run(uri, level="step")
    assert {len(value) for value in trial.data.params.values()} == {6000}
    assert len(trial.data.params) == 120
    assert len(trial.data.metrics) == len(step.data.metrics) == 1700
    assert len(trial.data.tags["note"]) == len(trial.data.tags["message"]) == 8000


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns", "sqlite://", "", "databricks"])
def test_only_databases_and_servers_are_allowed(uri: str) -> None:
    with pytest.raises(TrackingError, match="must be a database or a server"):
        Runs(uri, "s")


def test_a_server_that_does_not_answer_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(TrackingError, match=rf"MLflow at http://127.0.0.1:{port} must answer"):
        Runs(f"http://127.0.0.1:{port}", "s")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database, but long enough to look like one" * 100)
    with pytest.raises(TrackingError):
        Runs(f"sqlite:///{tmp_path}/notes.txt", "s")


def test_a_deleted_experiment_is_refused(uri: str) -> None:
    client = connect(uri)
    client.delete_experiment(client.create_experiment("s"))
    with pytest.raises(TrackingError, match="restore it or rename"):
        Runs(uri, "s")


@pytest.mark.smoke
def test_a_first_start_creates_the_database_without_a_word(tmp_path: Path) -> None:
    code = f"from sweeps.runs import Runs; Runs('sqlite:///{tmp_path}/new/mlflow.db', 's')"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert (tmp_path / "new" / "mlflow.db").is_file()
