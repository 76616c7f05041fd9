"""What a trial waits for, and what it does not."""

from __future__ import annotations

import errno

import pytest

from trainables.errors import CheckpointError
from trainables.tune import PASSING, patiently

NO_WAIT = (0.0, 0.0)


class Disk:
    """Refuses so many writes with an error."""

    def __init__(self, error: Exception, refused: int) -> None:
        self.error, self.left, self.tries = error, refused, 0

    def write(self) -> None:
        self.tries += 1
        self.left -= 1
        if self.left >= 0:
            raise self.error


@pytest.mark.parametrize("number", PASSING)
def test_a_disk_that_comes_back_costs_a_wait(number: int) -> None:
    disk = Disk(OSError(number, "away"), refused=2)
    patiently(disk.write, NO_WAIT)
    assert disk.tries == 3


def test_a_disk_behind_another_error_is_waited_for() -> None:
    error = CheckpointError("state.pt", ["cannot be read"])
    error.__cause__ = OSError(errno.EIO, "away")
    disk = Disk(error, refused=1)
    patiently(disk.write, NO_WAIT)
    assert disk.tries == 2


def test_a_disk_that_stays_full_ends_it_after_all_waits() -> None:
    disk = Disk(OSError(errno.ENOSPC, "full"), refused=9)
    with pytest.raises(OSError, match="full"):
        patiently(disk.write, NO_WAIT)
    assert disk.tries == 3


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "no image"), PermissionError(errno.EACCES, "no")])
def test_a_file_that_is_not_there_is_not_waited_for(error: OSError) -> None:
    disk = Disk(error, refused=1)
    with pytest.raises(type(error)):
        patiently(disk.write, NO_WAIT)
    assert disk.tries == 1
