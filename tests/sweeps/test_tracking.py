"""A driver's records through the process that writes them: outages, kills, records at fault, two drivers at once."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from sweeps import tracking
from sweeps.connection import TrackingError
from sweeps.runs import Runs
from sweeps.tracking import Tracker
from sweeps.writer import Writer, waiting
from tests.records import artifacts, points, runs_of, the_run
from tests.sweeps.events import MATRIX, METRICS, PARAMS, SCOPE, T0, TABLE
from trainables.journal import Journal, lines

TRIAL = [
    ["start_trial", ["t1", PARAMS, SCOPE, T0], {}],
    ["log_epoch", ["t1", {"loss": 2.0}, 1, T0], {}],
    ["log_step", ["t1", 0, METRICS, T0 + 5, TABLE, MATRIX], {}],
    ["end_trial", ["t1", "finished", T0 + 9], {}],
]


def run_trial(tracker: Tracker, trial_id: str) -> None:
    tracker.start_trial(trial_id, PARAMS, SCOPE, T0)
    tracker.log_epoch(trial_id, {"loss": 2.0}, progress=1, timestamp_ms=T0)
    tracker.log_step(trial_id, 0, METRICS, T0 + 5, TABLE, MATRIX)
    tracker.end_trial(trial_id, "finished", T0 + 9)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path / "records.jsonl")
    journal.append(["start_sweep", ["name: s", SCOPE, T0], {}])
    return journal


def note(journal: Journal, *events: object) -> None:
    for event in events:
        journal.append(event)


def statuses(uri: str) -> Counter[tuple[str, str]]:
    return Counter((run.data.tags["level"], run.info.status) for run in runs_of(uri))


DONE = {("sweep", "RUNNING"): 1, ("trial", "FINISHED"): 1, ("step", "FINISHED"): 1}


def test_what_a_writer_has_written_its_successor_does_not_repeat(uri: str, journal: Journal) -> None:
    note(journal, *TRIAL[:2])
    Writer(Runs(uri, "s"), journal.path).write()
    note(journal, *TRIAL[2:])
    assert waiting(journal.path) == 2
    Writer(Runs(uri, "s"), journal.path).write()
    assert waiting(journal.path) == 0
    assert statuses(uri) == DONE
    assert points(uri, the_run(uri, level="trial"), "epoch/loss") == [(1, 2.0)]


def test_a_writer_killed_before_it_noted_where_it_was_changes_nothing(uri: str, journal: Journal) -> None:
    note(journal, *TRIAL)
    Writer(Runs(uri, "s"), journal.path).write()
    journal.path.with_suffix(".position").unlink()
    Writer(Runs(uri, "s"), journal.path).write()
    assert statuses(uri) == DONE
    assert points(uri, the_run(uri, level="trial"), "ap_all") == [(0, 0.4)]


def test_what_is_noted_during_an_outage_arrives_after_it(
    uri: str, database: Path, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    writer = Writer(Runs(uri, "s"), journal.path)
    writer.write()
    away = database.rename(database.with_name("away.db"))
    database.mkdir()  # nothing can be opened here
    note(journal, *TRIAL)
    for _ in range(3):
        writer.write()
    assert (writer.standing("").waiting, writer.standing("").dropped) == (4, 0)
    assert len([record for record in caplog.records if record.name == "sweeps.writer"]) <= 2

    database.rmdir()
    away.rename(database)
    writer.write()
    assert writer.standing("").waiting == 0
    assert statuses(uri) == DONE


def test_an_event_that_is_at_fault_is_dropped_and_the_next_one_written(uri: str, journal: Journal) -> None:
    note(journal, ["log_epoch", ["never started", {"loss": 1.0}, 1, T0], {}])
    note(journal, TRIAL[0], ["log_epoch", ["t1", {"what?*": 1.0}, 1, T0], {}])
    note(journal, ["log_epoch", ["t1", {"loss": 1.0}, 2, T0], {}])
    writer = Writer(Runs(uri, "s"), journal.path)
    writer.write()
    assert writer.standing("t1").dropped == 2
    assert points(uri, the_run(uri, level="trial"), "epoch/loss") == [(2, 1.0)]


def test_a_line_that_a_kill_left_torn_is_cut_off(journal: Journal) -> None:
    before = journal.path.read_bytes()
    journal.path.write_bytes(before + b'["end_trial",["t')
    note(Journal(journal.path), TRIAL[0])
    assert [line.startswith((b'["start_sweep"', b'["start_trial"')) for line, _ in lines(journal.path)] == [True, True]


def test_a_report_that_cannot_be_made_holds_up_nothing(uri: str, journal: Journal) -> None:
    note(journal, ["log_report", [], {}], ["log_text", ["# Notes", "notes.md"], {}])
    writer = Writer(Runs(uri, "s"), journal.path)
    writer.write()
    assert (writer.standing("").waiting, writer.standing("").dropped) == (0, 1)
    assert "no report: SpecError" in writer.standing("").failure


@pytest.mark.smoke
def test_a_sweep_is_written_by_the_time_it_ends(uri: str, tmp_path: Path) -> None:
    with Tracker(uri, "s", tmp_path / "s") as tracker:
        sweep = tracker.start_sweep("name: s\n", SCOPE, T0)
        run_trial(tracker, "t1")
        assert tracker.run_id("t1") == the_run(uri, level="trial").info.run_id
        tracker.end_sweep("finished", {"hours": 0.1}, T0 + 99)
        record = the_run(uri, level="sweep")
        assert record.info.run_id == sweep
        assert {run.info.status for run in runs_of(uri)} == {"FINISHED"}
        tracker.log_text("# Report", "report.md")
    assert artifacts(uri, record) == {"report.md", "spec.yaml"}


@pytest.mark.smoke
def test_a_killed_writer_is_replaced_and_nothing_is_lost(uri: str, tmp_path: Path) -> None:
    with Tracker(uri, "s", tmp_path / "s") as tracker:
        tracker.start_sweep("name: s\n", SCOPE, T0)
        os.kill(tracker._writer.pid, signal.SIGKILL)
        run_trial(tracker, "t1")
        tracker.log_reference("joint", {"ap_all": object()}, 1)  # type: ignore[dict-item]
        tracker.end_sweep("finished", {}, T0 + 99)
    assert statuses(uri) == {("sweep", "FINISHED"): 1, ("trial", "FINISHED"): 1, ("step", "FINISHED"): 1}


@pytest.mark.smoke
def test_a_sweep_ends_though_mlflow_never_comes_back(
    uri: str, database: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Tracker(uri, "s", tmp_path / "s") as tracker:
        tracker.start_sweep("", SCOPE, T0)
        database.rename(database.with_name("away.db"))
        database.mkdir()
        run_trial(tracker, "t1")
        tracker.end_sweep("finished", {}, T0)
    assert "not in MLflow: 5 records that wait" in caplog.text


@pytest.mark.smoke
def test_a_journal_has_one_driver(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "LOCK_WAIT_S", 0.1)
    with Tracker(uri, "s", tmp_path / "s"), pytest.raises(TrackingError, match="must have one driver"):
        Tracker(uri, "s", tmp_path / "s")


@pytest.mark.smoke
def test_an_address_that_cannot_be_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="must be a database or a server"):
        Tracker("mlruns", "s", tmp_path / "s")
