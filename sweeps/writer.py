"""The process that writes a sweep's journal to MLflow and copies its study into a database.

It outlives its driver until all is written or MLflow fails. It answers each line of its standard input with one line.
The first is `[uri, sweep, journal, URL of the study's copy or null, store or null, seconds to wait for the journal's
lock]`; the answer, the problems that there are. Each other is the id of a trial or `""`; the answer, the `Standing`
once it has written what it can.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import sys
import time
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from sweeps.connection import TrackingError
from sweeps.runs import Runs
from trainables.errors import one_line
from trainables.files import write_json
from trainables.journal import lines

if TYPE_CHECKING:
    from sweeps.study_copy import StudyCopy

POLL_S = 0.1  # between two looks at the journal
SHARE = 0.1  # of a core, while trials run: they come first
RETRY_AFTER_S = 10.0  # between two attempts while MLflow is down
MAX_TRIES = 10  # of an event that fails although MLflow answers
NICENESS = 10

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Standing:
    """How far a writer is: the events that wait and that were dropped, why the last one failed, the run asked for."""

    waiting: int = 0
    dropped: int = 0
    failure: str = ""
    run_id: str | None = None


class Writer:
    """Replays a journal into `Runs`, each event until it succeeds; an event that is itself at fault is dropped."""

    def __init__(self, runs: Runs, journal: Path, copy: StudyCopy | None = None) -> None:
        self._runs, self._journal, self._copy = runs, journal, copy
        self._copy_failure = ""
        self._offset, self._dropped = _position(journal)
        self._failure, self._tries, self._down = "", 0, False
        self._rests_until = 0.0

    def write(self, at_most: int | None = None) -> None:
        """Write the events that wait, or so many of them, until MLflow fails."""
        for line, end in islice(lines(self._journal, self._offset), at_most):
            if not self._written(line):
                return
            self._offset, self._tries = end, 0
            write_json(_position_file(self._journal), [self._offset, self._dropped])

    def look(self) -> None:
        """Write one event and rest: in proportion to what it took, and longer while MLflow is down."""
        began = time.monotonic()
        if began >= self._rests_until:
            self.copy_study()
            self.write(at_most=1)
            ended = time.monotonic()
            self._rests_until = ended + (RETRY_AFTER_S if self._down else (ended - began) / SHARE)

    def copy_study(self) -> None:
        """Bring the study's copy up to date; a database that is away gets another chance at the next look."""
        if self._copy is None:
            return
        try:
            self._copy.update()
        except Exception as error:  # whatever it is: the search has its own study
            if (told := one_line(error)) != self._copy_failure:
                _log.warning("the study was not copied; the sweep goes on. %s", told)
            self._copy_failure = told

    def standing(self, trial_id: str) -> Standing:
        """How far it is."""
        return Standing(waiting(self._journal), self._dropped, self._failure, self._runs.run_id(trial_id))

    def _written(self, line: bytes) -> bool:
        """Whether an event is done with, written or dropped."""
        try:
            if self._down:
                self._runs.load()
                self._down, self._tries = False, self._tries + 1
            event, args, kwargs = json.loads(line)
            getattr(self._runs, event)(*args, **kwargs)
        except Exception as error:  # whatever it is: the events after it count as well
            self._note(error)
            if self._down or not (_at_fault(error) or self._tries >= MAX_TRIES):
                self._down = True
                return False
            self._dropped += 1
        return True

    def _note(self, error: Exception) -> None:
        told = one_line(error)
        if told != self._failure:
            _log.warning("MLflow did not take a record; the sweep goes on. %s", told)
        self._failure = told


def waiting(journal: Path) -> int:
    """How many events of a journal MLflow does not have yet."""
    offset, _ = _position(journal)
    return sum(1 for _ in lines(journal, offset))


def _position(journal: Path) -> tuple[int, int]:
    """Bytes of the journal that are done with, and how many events among them were dropped.

    Raises:
        TrackingError: the file that says so is broken, or of another journal.
    """
    path = _position_file(journal)
    if not path.exists():
        return 0, 0
    try:
        offset, dropped = map(int, json.loads(path.read_bytes()))
    except (TypeError, ValueError) as error:
        remedy = "delete it, and all that the journal holds is written again, over what is there"
        raise TrackingError(str(path), [f"cannot be read ({error}); {remedy}"]) from error
    if not 0 <= offset <= journal.stat().st_size:
        problem = f"is of a journal of at least {offset} bytes, but {journal.name} has {journal.stat().st_size}: "
        raise TrackingError(str(path), [problem + "it was cut; delete this file to write again what is left of it"])
    return offset, dropped


def _position_file(journal: Path) -> Path:
    return journal.with_suffix(".position")


def _at_fault(error: Exception) -> bool:
    """Whether an event would fail again however well MLflow is."""
    refused = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST")
    ours = isinstance(error, (LookupError, TypeError, ValueError, FileNotFoundError))
    return ours or getattr(error, "error_code", None) in refused


def main() -> None:
    """Serve one driver, until its end of the pipe closes; then write what is left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides; Ctrl-C reaches every process of a terminal
    os.nice(NICENESS)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a package prints is no answer
    if not (first := sys.stdin.readline()):
        return
    uri, sweep, journal, study_url, store, lock_wait_s = json.loads(first)
    from sweeps.study_copy import StudyCopy  # the driver, which imports this file as well, needs none

    copy = StudyCopy(sweep, Path(journal).parent, study_url) if study_url else None
    try:
        with FileLock(f"{journal}.lock", timeout=lock_wait_s):
            _serve(Writer(Runs(uri, sweep, store), Path(journal), copy), answers)
    except TrackingError as error:
        _say(answers, [str(error).removeprefix("tracking: ")])
    except Timeout:
        _say(answers, [f"the records of {sweep!r} must have one driver, but another one is writing them"])


def _serve(writer: Writer, answers: IO[str]) -> None:
    _say(answers, [])
    while True:
        if not select.select([sys.stdin], [], [], POLL_S)[0]:
            writer.look()
            continue
        request = sys.stdin.readline()
        writer.copy_study()
        writer.write()
        if not request:
            return
        _say(answers, asdict(writer.standing(json.loads(request))))


def _say(answers: IO[str], answer: Any) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
