"""What a sweep spent and saved, from what its trials told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sweeps.costs import add_references, hours, hours_line
from sweeps.spec import SweepSpec
from tests.sweeps.sweep_files import spec_of
from trainables.journal import append


def told(spec: SweepSpec, *trials: list[tuple[int, dict[str, float]]]) -> None:
    """Write what trials reported: the clock and, at the end of a step, its facts."""
    for number, events in enumerate(trials):
        for clock, facts in events:
            event = {"progress": clock} | ({"facts": facts} if facts else {})
            append(spec.folder / "trials" / str(number) / "events.jsonl", event)


BASE_WAS_THERE = {"time_train_s": 0.0, "time_saved_steps_s": 3600.0}
TABLES = {
    "time_saved_images_s": 720.0, "time_saved_targets_s": 360.0, "time_saved_responses_s": 1080.0,
    "time_saved_latents_s": 240.0,
}  # fmt: skip


@pytest.fixture
def two_epochs(tmp_path: Path) -> SweepSpec:
    """A sweep whose trials train two epochs each, on two cores and half a GPU."""
    return replace(spec_of(resources={"cpu": 2, "gpu": 0.5}, training={"epochs": 2}), storage=tmp_path)


def test_hours_are_told_by_mechanism_and_resource(two_epochs: SweepSpec) -> None:
    finished = [(0, BASE_WAS_THERE), (1, {}), (2, {"time_train_s": 100.0} | TABLES)]
    told(two_epochs, finished, [(0, BASE_WAS_THERE), (1, {})], [])
    for _ in range(2):  # by two drivers
        add_references(two_epochs, 1800.0)
    found = hours(two_epochs, spent_s=7200.0)
    expected = {
        "spent": 2.0,
        "saved_steps": 2.0,
        "saved_images": 0.3,  # 0.2 in two epochs that were told of; three were trained
        "saved_targets": 0.15,
        "saved_responses": 0.45,
        "saved_latents": 0.1,
        "saved_stopping": 2 / 3,  # one epoch more at the pace of 2 hours for three
    }
    expected |= {"saved": sum(expected.values()) - expected["spent"], "references": 1.0}
    assert found == pytest.approx(
        {f"core_hours_{what}": 2 * value for what, value in expected.items()}
        | {f"gpu_hours_{what}": 0.5 * value for what, value in expected.items()}
    )


def test_a_table_saves_alike_whether_or_not_there_are_others(two_epochs: SweepSpec) -> None:
    alone = {"time_train_s": 100.0, "time_saved_targets_s": 360.0}
    told(two_epochs, *[[(0, BASE_WAS_THERE), (2, alone)]] * 3)
    found = hours(two_epochs, spent_s=7200.0)
    assert found["core_hours_saved_targets"] == pytest.approx(2 * 0.3)
    assert found["core_hours_saved_images"] == found["core_hours_saved_stopping"] == 0


def test_a_sweep_without_a_trained_epoch_saved_nothing(two_epochs: SweepSpec) -> None:
    assert set(hours(two_epochs, spent_s=0.0).values()) == {0.0}
    told(two_epochs, [], [(0, {"time_train_s": 0.0})])
    assert set(hours(two_epochs, spent_s=0.0).values()) == {0.0}


def test_hours_are_told_in_one_line(two_epochs: SweepSpec) -> None:
    told(two_epochs, [(0, BASE_WAS_THERE), (2, {"time_train_s": 100.0} | TABLES)])
    assert hours_line(hours(two_epochs, spent_s=7200.0), "gpu") == (
        "GPU-hours: references 0.00, trials 1.00, saved 0.83 "
        "(steps 0.50, images 0.10, targets 0.05, responses 0.15, latents 0.03)"
    )
