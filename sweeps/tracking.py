"""The records of a sweep on their way to MLflow: the driver notes each event in a journal, another process writes it.

An event costs the search a line of JSON in `records.jsonl` of the sweep's folder. `sweeps.writer` replays the journal
into `sweeps.runs` in order; the position up to which it came is kept beside it, so nothing is lost and nothing doubled
when driver, writer or MLflow die. The writer alone speaks to MLflow.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec

from search_spaces.distributions import Scalar
from sweeps.connection import TrackingError, answered
from sweeps.driver import only_driver
from sweeps.runs import Runs, Verdict
from sweeps.spec import SweepSpec
from sweeps.writer import Standing, waiting
from trainables.errors import one_line
from trainables.journal import Journal

__all__ = ["Tracker", "Verdict"]

MAX_BYTES = 4 << 30  # of a journal: a hundred thousand trials
LOCK_WAIT_S = 60.0  # for the writer of a driver that has just died

_log = logging.getLogger(__name__)
_P = ParamSpec("_P")


def _noted(event: Callable[Concatenate[Runs, _P], None]) -> Callable[Concatenate[Tracker, _P], None]:
    """An event of `Runs` that the tracker notes, with its arguments as they are now."""

    @functools.wraps(event)
    def note(self: Tracker, /, *args: _P.args, **kwargs: _P.kwargs) -> None:
        self._note(event.__name__, args, kwargs)

    return note


class Tracker:
    """The records of one sweep. Once it exists, only `start_sweep` raises. Used as a context, it ends with its writer.

    The events are those of `sweeps.runs.Runs`, whose arguments must be plain data.

    Args:
        uri: of a database or a server, see `sweeps.connection.connect`.
        sweep: the name of the sweep and of its experiment.
        folder: of the sweep; the journal lies there.
        study: database to copy the sweep's Optuna study into, see `sweeps.study_copy`.
        store: that the pictures of steps are taken from, see `sweeps.runs.Runs`.

    Raises:
        TrackingError: MLflow does not answer, or `uri` or `sweep` cannot be used, or another driver has the journal.
    """

    def __init__(
        self, uri: str, sweep: str, folder: Path, study: str | None = None, store: Path | str | None = None
    ) -> None:
        self.uri, self.sweep, self.study, self.store = uri, sweep, study, store
        self._journal = Journal(folder / "records.jsonl")
        self._lost = 0
        self._writer = self._start()

    def start_sweep(self, spec_yaml: str, tags: Mapping[str, Scalar], timestamp_ms: int) -> str:
        """The run id of the sweep, once all that the journal holds is written.

        Raises:
            TrackingError: MLflow did not take it.
        """
        self._note("start_sweep", (spec_yaml, tags, timestamp_ms), {})
        standing = self._ask()
        if standing.waiting or standing.run_id is None:
            raise TrackingError("tracking", [f"MLflow at {self.uri} must answer, but: {standing.failure}"])
        return standing.run_id

    start_trial = _noted(Runs.start_trial)
    log_epoch = _noted(Runs.log_epoch)
    log_step = _noted(Runs.log_step)
    log_trial = _noted(Runs.log_trial)
    end_trial = _noted(Runs.end_trial)
    keep_trials = _noted(Runs.keep_trials)
    log_reference = _noted(Runs.log_reference)
    log_text = _noted(Runs.log_text)
    log_report = _noted(Runs.log_report)

    def log_sweep(self, metrics: Mapping[str, float], timestamp_ms: int) -> None:
        """Note metrics, see `Runs.log_sweep`, and wait as `end_sweep` does."""
        self._note("log_sweep", (metrics, timestamp_ms), {})
        self._settle()

    def end_sweep(self, verdict: Verdict, metrics: Mapping[str, float], timestamp_ms: int) -> None:
        """Note the end, see `Runs.end_sweep`, and wait until everything is written or MLflow fails."""
        self._note("end_sweep", (verdict, metrics, timestamp_ms), {})
        self._settle()

    def standing(self) -> Standing:
        """How far the writer is, once it has written what it can."""
        return self._ask()

    def run_id(self, trial_id: str) -> str | None:
        """The run of a trial, once all that was noted is written; None if MLflow has none."""
        return self._ask(trial_id).run_id

    def close(self) -> None:
        """Wait until the writer has written what it can, and ends."""
        self._writer.communicate()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is KeyboardInterrupt:  # a person does not want to wait; the writer goes on by itself
            assert self._writer.stdin is not None
            self._writer.stdin.close()
        else:
            self.close()

    def _note(self, event: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        try:
            if self._journal.num_bytes > MAX_BYTES:
                raise OSError(f"{self._journal.path} has {MAX_BYTES >> 30} GiB, and takes no more")
            self._journal.append([event, args, kwargs])
        except Exception as error:  # whatever it is, a full disk or an odd value: a record never ends a sweep
            self._lost += 1
            _log.warning("a record is lost: %s", one_line(error))

    def _settle(self) -> None:
        standing = self._ask()
        if standing.waiting or standing.dropped or self._lost:
            _log.warning(
                "not in MLflow: %d records that wait in %s for `sweeps sync %s`, %d dropped",
                standing.waiting, self._journal.path, self.sweep, standing.dropped + self._lost,
            )  # fmt: skip

    def _ask(self, trial_id: str = "") -> Standing:
        """The writer's standing once it has written what it can; one that was killed gets a successor."""
        try:
            try:
                return Standing(**_answer(self._writer, trial_id))
            except (OSError, EOFError, ValueError):
                self.close()
                self._writer = self._start()
                return Standing(**_answer(self._writer, trial_id))
        except (TrackingError, OSError, EOFError, ValueError) as error:
            return Standing(waiting(self._journal.path), failure=one_line(error))

    def _start(self) -> subprocess.Popen[str]:
        """A writer that has opened the sweep's experiment."""
        process = subprocess.Popen(
            [sys.executable, "-m", "sweeps.writer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        # Not as arguments, which every user of the machine can read: an address may hold a password.
        store = str(self.store) if self.store else None
        first = [self.uri, self.sweep, str(self._journal.path), self.study, store, LOCK_WAIT_S]
        problems = answered(self.uri, lambda: _answer(process, first))
        if problems:
            process.communicate()
            raise TrackingError("tracking", problems)
        return process


def sync_records(spec: SweepSpec) -> str:
    """Write what waits in a sweep's journal; how much it was, in words.

    Raises:
        TrackingError: MLflow does not answer or did not take all.
        SpecError: another process runs or promotes the sweep.
    """
    uri, journal = spec.tracking_uri, spec.folder / "records.jsonl"
    with only_driver(spec.name, spec.folder):
        before = waiting(journal) if journal.exists() else 0
        with tracker_of(spec) as tracker:
            standing = tracker.standing()
    if standing.waiting:
        problem = f"MLflow at {uri} must take {standing.waiting} records that wait, but: {standing.failure}"
        raise TrackingError("tracking", [problem])
    dropped = f", {standing.dropped} dropped: {standing.failure}" if standing.dropped else ""
    return f"{spec.name}: {before} records written, none waits{dropped}"


def tracker_of(spec: SweepSpec) -> Tracker:
    """The records of a sweep; raises what `Tracker` does."""
    return Tracker(spec.tracking_uri, spec.name, spec.folder, spec.study_url, spec.store)


def _answer(process: subprocess.Popen[str], request: Any) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise EOFError("the process that writes to MLflow has ended")
    return json.loads(answer)
