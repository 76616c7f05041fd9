"""One driver a sweep: two at work on one would tear its study and its records."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from trainables.errors import SpecError

WAIT_S = 10.0
"""How long another driver may take to end: one that was interrupted still saves."""


@contextmanager
def only_driver(name: str, folder: Path) -> Iterator[None]:
    """Be the only process that runs or promotes the sweep of this name and folder, or writes its records.

    Raises:
        SpecError: another one does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "driver.lock")
    try:
        held = lock.acquire(timeout=WAIT_S)
    except Timeout as error:
        raise SpecError(name, [f"is in use by another process, which holds {lock.lock_file}"]) from error
    with held:
        yield
