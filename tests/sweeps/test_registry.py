"""Promotion: what wins is the champion, what loses is kept beside it, and the champion can be downloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from sweeps.connection import TrackingError, connect
from sweeps.registry import Registration, champion_name, decide, register
from trainables.errors import CheckpointError

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

    def promote(score: float, *, run_id: str = "", metric: str = "ap_all", data: str = "d1") -> Registration:
        checkpoint = tmp_path / f"student_{score}.pth"
        checkpoint.write_text(f"weights of {score}")
        tags = {"config_id": "0123", "method": "erd", "test_data": data}
        return register(uri, NAME, run_id or final_run(uri), checkpoint, tags, score, metric)

    return promote


def champion_file(uri: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    folder = mlflow.artifacts.download_artifacts(f"models:/{NAME}@champion")
    (file,) = Path(folder).iterdir()
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
    ("current", "candidate", "promoted"),
    [(None, 0.0, True), (0.3, 0.4, True), (0.4, 0.4, False), (0.4, 0.3, False), (None, float("nan"), False)],
)
def test_only_a_better_candidate_replaces(current: float | None, candidate: float, promoted: bool) -> None:
    decision = decide(current, candidate)
    assert bool(decision) is promoted
    assert decision.reason


def test_the_first_model_becomes_the_champion_and_can_be_downloaded(
    promote: Promote, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registration = promote(0.4)
    assert registration.decision
    version = connect(uri).get_model_version_by_alias(NAME, "champion")
    assert str(version.version) == registration.version
    told = {"config_id": "0123", "method": "erd", "test_data": "d1", "metric": "ap_all", "score": "0.4"}
    assert version.tags == told
    assert champion_file(uri, monkeypatch).read_text() == "weights of 0.4"


def test_a_better_model_replaces_the_champion(promote: Promote, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    promote(0.4)
    assert promote(0.5).decision
    assert champion_file(uri, monkeypatch).name == "student_0.5.pth"


def test_a_worse_model_is_kept_but_not_as_champion(promote: Promote, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = promote(0.4)
    second = promote(0.3)
    assert not second.decision
    assert "0.3000" in second.decision.reason
    assert second.version != first.version
    assert champion_file(uri, monkeypatch).name == "student_0.4.pth"


@pytest.mark.parametrize(
    ("other", "reason"), [({"metric": "omega"}, "metric 'ap_all'"), ({"data": "d2"}, "test_data 'd1'")]
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


def test_a_missing_checkpoint_or_run_leaves_nothing_behind(promote: Promote, uri: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        register(uri, NAME, final_run(uri), tmp_path / "absent.pth", {}, 0.4, "ap_all")
    with pytest.raises(TrackingError):
        promote(0.4, run_id="f" * 32)
    assert not connect(uri).search_registered_models()
