"""Records on their way to MLflow: in order, and waiting while it is down."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable

from sweeps.connection import one_line

RETRY_AFTER_S = 30.0  # while MLflow is down, the search goes on undisturbed for so long between two attempts
MAX_TRIES = 10  # of an event that fails although MLflow answers
MAX_WAITING = 10_000  # events

_log = logging.getLogger(__name__)


class Outbox:
    """Events in order, each run until it succeeds; nothing is ever raised.

    While MLflow is down they wait in memory, and only one attempt in `RETRY_AFTER_S` costs time. An event that is
    itself at fault is dropped.

    Args:
        reconnect: called before the first event after a failure; raises while MLflow is down.
    """

    def __init__(self, reconnect: Callable[[], object]) -> None:
        self.failures: Counter[str] = Counter()
        self.dropped = 0
        self._reconnect = reconnect
        self._waiting: deque[Callable[[], object]] = deque()
        self._tries = 0
        self._retry_at: float | None = None  # None while MLflow answers

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, event: Callable[[], object]) -> None:
        """Run `event` after those that wait: now, or when MLflow answers again."""
        if len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
            return
        self._waiting.append(event)
        if self._retry_at is None or time.monotonic() >= self._retry_at:
            self.flush()

    def flush(self) -> None:
        """Run what waits, until nothing does or MLflow fails."""
        while self._waiting:
            if self._retry_at is not None and self._failure(self._reconnect):
                self._retry_at = time.monotonic() + RETRY_AFTER_S
                return
            self._retry_at = None
            if error := self._failure(self._waiting[0]):
                self._tries += 1
                if not _at_fault(error) and self._tries < MAX_TRIES:
                    self._retry_at = time.monotonic() + RETRY_AFTER_S
                    return
                self.dropped += 1
            self._waiting.popleft()
            self._tries = 0

    def _failure(self, action: Callable[[], object]) -> Exception | None:
        try:
            action()
        except Exception as error:  # whatever it is: a record never ends a sweep
            self._note(error)
            return error
        return None

    def _note(self, error: Exception) -> None:
        kind = str(getattr(error, "error_code", type(error).__name__))
        self.failures[kind] += 1
        if self.failures[kind] == 1:
            _log.warning("MLflow did not take a record; the sweep goes on. %s", one_line(error))


def _at_fault(error: Exception) -> bool:
    """Whether an event would fail again however well MLflow is."""
    refused = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST")
    ours = isinstance(error, (LookupError, TypeError, ValueError, FileNotFoundError))
    return ours or getattr(error, "error_code", None) in refused
