"""Promotion: what wins is the champion, what loses is kept beside it; the registry says where each comes from."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from sweeps.connection import TrackingError, connect
from sweeps.model_page import MAX_CHARS
from sweeps.registry import Candidate, Registration, champion_name, decide, register
from trainables.errors import CheckpointError
from trainables.objectives import Objective

Promote = Callable[..., Registration]
NAME = champion_name("digits/5+5", "gfl_r18")


def final_run(uri: str) -> str:
    client = connect(uri)
    experiment = client.get_experiment_by_name("final")
    experiment_id = experiment.experiment_id if experiment else client.create_experiment("final")
    return str(client.create_run(experiment_id).info.run_id)


@pytest.fixture
def promote(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Promote:
    monkeypatch.chdir(tmp_path)  # the default artifact root is relative

    def promote(
        score: float, *, run_id: str = "", metric: str = "ap_all", data: str = "d1", rows: int = 1, file: bool = True
    ) -> Registration:
        checkpoint = tmp_path / f"student_{score}.pth"
        if file:
            checkpoint.write_text(f"weights of {score}")
        candidate = Candidate(
            name=NAME,
            run_id=run_id or final_run(uri),
            checkpoint=checkpoint,
            tags={"scenario": "digits/5+5", "detector": "gfl_r18", "method": "erd", "test_data": data},
            facts={"sweep": "`small`, trial 7", "config_id": "`0123`"},
            rows={f"row {row}": {"ap_all": [0.4, 0.5], "ap_old": [0.25]} for row in range(rows)},
            objective=Objective(metric),
            score=score,
        )
        return register(uri, candidate)

    return promote


def champion_file(uri: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    folder = mlflow.artifacts.download_artifacts(f"models:/{NAME}@champion")
    (file,) = Path(folder, "data").iterdir()
    return file


@pytest.mark.parametrize(
    ("scenario", "detector", "name"),
    [
        ("digits/5+5", "gfl_r18", "digits-5+5.gfl_r18"),
        ("coco/40+40@shuffle:7", "nanodet", "coco-40+40-shuffle-7.nanodet"),
    ],
)
def test_a_name_is_safe_in_a_model_uri(scenario: str, detector: str, name: str) -> None:
    assert champion_name(scenario, detector) == name


@pytest.mark.parametrize(
    ("metric", "current", "candidate", "promoted", "reason"),
    [
        ("ap_all", None, 0.0, True, "first champion, with ap_all 0.0"),
        ("ap_all", 0.3, 0.412, True, "ap_all 41.2 beats the champion's 30.0"),
        ("ap_all", 0.4, 0.4, False, "ap_all 40.0 does not beat the champion's 40.0"),
        ("ap_all", 0.4, 0.3, False, "ap_all 30.0 does not beat the champion's 40.0"),
        ("forgetting", 0.02, -0.01, True, "forgetting -1.0 beats the champion's 2.0"),
        ("forgetting", 0.02, 0.03, False, "forgetting 3.0 does not beat the champion's 2.0"),
        ("time_train_s", 90.0, 45.0, True, "time_train_s 45 s beats the champion's 2 min"),
        ("ap_all", None, math.nan, False, "a champion needs a score, but got nan"),
    ],
)
def test_only_a_better_candidate_replaces(
    metric: str, current: float | None, candidate: float, promoted: bool, reason: str
) -> None:
    decision = decide(Objective(metric), current, candidate)
    assert (bool(decision), decision.reason) == (promoted, reason)


def test_the_first_model_becomes_the_champion_and_can_be_downloaded(
    promote: Promote, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registration = promote(0.4)
    assert registration.decision
    version = connect(uri).get_model_version_by_alias(NAME, "champion")
    assert str(version.version) == registration.version
    told = {"scenario": "digits/5+5", "detector": "gfl_r18", "method": "erd", "test_data": "d1"}
    assert version.tags == told | {"metric": "ap_all", "score": "0.4"}
    file = champion_file(uri, monkeypatch)
    assert file.read_text() == "weights of 0.4"
    model = mlflow.models.Model.load(str(file.parents[1]))
    assert model.signature.inputs.input_names() == ["image"]
    assert model.signature.outputs.input_names() == ["boxes", "scores", "classes"]
    assert model.run_id == version.run_id
    assert not [path for path in file.parents[1].rglob("*") if path.suffix in (".pkl", ".lock", ".toml")]
    requirements = (file.parents[1] / "requirements.txt").read_text()
    assert "torch==" in requirements
    assert "palimpsest" not in requirements  # whatever an index has under that name would be installed


def test_the_registry_says_where_a_version_comes_from_and_how_to_use_it(promote: Promote, uri: str) -> None:
    promote(0.4)
    promote(0.3)
    client = connect(uri)
    model, page = (
        client.get_registered_model(NAME).description,
        client.get_model_version(NAME, "2").description,
    )
    assert f'mlflow.pyfunc.load_model("models:/{NAME}@champion")' in model
    assert f"mlflow models serve -m models:/{NAME}@champion --env-manager local" in model
    assert f'mlflow.pyfunc.load_model("models:/{NAME}/2")' in page
    assert "| config_id | `0123` |" in page
    assert "| row 0 | 45.0 ± 5.0 | 25.0 | - | - |" in page


def test_a_page_is_no_longer_than_mlflow_takes(promote: Promote, uri: str) -> None:
    promote(0.4, rows=500)
    page = connect(uri).get_model_version(NAME, "1").description
    assert MAX_CHARS - 100 < len(page) <= MAX_CHARS
    assert page.endswith(" - |")


def test_a_better_model_replaces_the_champion(promote: Promote, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    promote(0.4)
    assert promote(0.5).decision
    assert champion_file(uri, monkeypatch).name == "student_0.5.pth"


def test_a_worse_model_is_kept_but_not_as_champion(promote: Promote, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = promote(0.4)
    second = promote(0.3)
    assert not second.decision
    assert "30.0" in second.decision.reason
    assert second.version != first.version
    assert champion_file(uri, monkeypatch).name == "student_0.4.pth"


@pytest.mark.parametrize(
    ("other", "reason"), [({"metric": "ap_new"}, "metric 'ap_all'"), ({"data": "d2"}, "test_data 'd1'")]
)
def test_scores_by_other_metrics_or_on_other_data_are_not_compared(
    promote: Promote, uri: str, other: dict[str, str], reason: str
) -> None:
    first = promote(0.4)
    second = promote(0.9, **other)
    assert not second.decision
    assert reason in second.decision.reason
    assert str(connect(uri).get_model_version_by_alias(NAME, "champion").version) == first.version


def test_promoting_a_run_again_changes_nothing(promote: Promote, uri: str) -> None:
    run_id = final_run(uri)
    first, second = promote(0.4, run_id=run_id), promote(0.4, run_id=run_id)
    assert second.version == first.version
    assert len(connect(uri).search_model_versions(f"name = '{NAME}'")) == 1


def test_a_promotion_that_died_before_the_alias_is_completed(promote: Promote, uri: str) -> None:
    run_id = final_run(uri)
    promote(0.4, run_id=run_id)
    connect(uri).delete_registered_model_alias(NAME, "champion")
    assert promote(0.4, run_id=run_id).decision


def test_a_missing_checkpoint_or_run_leaves_nothing_behind(promote: Promote, uri: str) -> None:
    with pytest.raises(CheckpointError):
        promote(0.4, file=False)
    with pytest.raises(TrackingError):
        promote(0.4, run_id="f" * 32)
    assert not connect(uri).search_registered_models()
