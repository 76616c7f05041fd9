"""What a run refuses before it costs anything, and where its scheduler looks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from sweeps import driver
from sweeps.progress import Display
from sweeps.promotion import promote_sweep
from sweeps.runner import run_sweep
from sweeps.schedulers import rungs
from sweeps.spec import SweepSpec
from sweeps.tracking import sync_records
from tests.sweeps.sweep_files import spec_of
from trainables.errors import CheckpointError, SpecError
from trainables.files import write_json


@pytest.mark.parametrize(
    ("scenario", "epochs", "scheduler", "expected"),
    [
        ("digits/5+5", 5, {"grace": 2, "reduction_factor": 2}, (2, 4)),
        ("digits/5+5", 3, {"grace": 1, "reduction_factor": 3}, (1,)),
        ("digits/5+5", 9, {"grace": 1}, (1, 3)),
        ("digits/5+5", 5, {}, ()),  # the first increment is the last one
        ("digits/2+2+2+2+2", 5, {}, (5, 15)),
        ("digits/2+2+2+2+2", 5, {"reduction_factor": 2}, (5, 10)),
        ("digits/2+2+2+2+2", 5, {"name": "none", "grace": 2}, ()),
        ("digits/2+2+2+2+2", 5, {"name": "hyperband"}, (5, 15)),
        ("digits/4+3+3", 4, {"name": "median", "grace": 3}, (3, 4, 5, 6, 7)),
        ("digits/4+3+3", 4, {"name": "median"}, (4, 5, 6, 7)),
    ],
)
def test_rungs_grow_by_the_factor_and_end_before_the_end(
    scenario: str, epochs: int, scheduler: dict[str, Any], expected: tuple[int, ...]
) -> None:
    spec = spec_of(scenario=scenario, training={"epochs": epochs}, scheduler=scheduler)
    assert rungs(spec) == expected
    assert all(rung < spec.max_progress for rung in expected)


@pytest.fixture
def started(tmp_path: Path) -> SweepSpec:
    """A sweep that was started from `GOOD` and left."""
    spec = replace(spec_of(), storage=tmp_path / "runs", tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    write_json(spec.folder / "spec.json", {"identity": spec.identity, "text": spec.text})
    return spec


def refused(spec: SweepSpec, resume: bool) -> str:
    before = {path: path.read_bytes() for path in spec.storage.parent.rglob("*") if path.is_file()}
    with Display() as display, pytest.raises(SpecError) as raised:
        run_sweep(spec, resume, display)
    assert {path: path.read_bytes() for path in spec.storage.parent.rglob("*") if path.is_file()} == before
    return str(raised.value)


def test_a_sweep_has_one_driver_at_a_time(started: SweepSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "WAIT_S", 0.1)
    with FileLock(started.folder / "driver.lock"):
        assert "is in use by another process" in refused(started, resume=True)


def test_a_sweep_that_runs_is_not_promoted_nor_are_its_records_written(
    started: SweepSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "WAIT_S", 0.1)
    with FileLock(started.folder / "driver.lock"):
        with pytest.raises(SpecError, match="is in use by another process"):
            sync_records(started)
        with Display() as display, pytest.raises(SpecError, match="is in use by another process"):
            promote_sweep(started, None, display)


def test_a_sweep_that_exists_is_not_started_again(started: SweepSpec) -> None:
    assert refused(started, resume=False) == (
        f"good: exists in {started.folder}; go on with --resume, or give the sweep another name"
    )


def test_a_sweep_is_not_resumed_from_another_file(started: SweepSpec) -> None:
    other = replace(spec_of(trials=5), storage=started.storage, tracking_uri=started.tracking_uri)
    assert refused(other, resume=True).startswith("good: was started from another sweep file; resume with that file")
    assert refused(other, resume=False).startswith("good: exists in ")


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00"])
def test_a_record_that_cannot_be_read_is_no_fresh_start(started: SweepSpec, content: str) -> None:
    (started.folder / "spec.json").write_text(content)
    with Display() as display, pytest.raises(CheckpointError, match=r"spec\.json: cannot be read"):
        run_sweep(started, True, display)
