"""Files of JSON lines that one process appends to: a line is there whole, or not at all."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from trainables.files import written_whole

_log = logging.getLogger(__name__)


class Journal:
    """A file to append to. What was appended outlives the process; a line that a killed one left torn is cut off."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        cut_torn_line(path)
        self._file = path.open("ab", buffering=0)

    @property
    def num_bytes(self) -> int:
        """Its size."""
        return os.fstat(self._file.fileno()).st_size

    def append(self, value: Any) -> bytes:
        """The line that `value` is now in the file, written at once.

        Raises:
            OSError: it cannot be written; the file is as before.
        """
        line, before = line_of(value), self.num_bytes
        if self._file.write(line) != len(line):  # a disk that fills up takes a part
            os.ftruncate(self._file.fileno(), before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        return line

    def __getstate__(self) -> Path:
        """The path: a copy in another process opens the file anew."""
        return self.path

    def __setstate__(self, path: Path) -> None:
        Journal.__init__(self, path)


def append(path: Path, value: Any) -> None:
    """Append to a journal and close it, so that other hosts of a shared folder see what is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(line_of(value))


def line_of(value: Any) -> bytes:
    """`value` as a line of a journal."""
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def lines(path: Path, offset: int = 0) -> Iterator[tuple[bytes, int]]:
    """Each whole line after `offset` bytes of a journal, and the offset at its end."""
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield line, offset


def read(path: Path) -> list[Any]:
    """All that was appended to a journal; nothing if there is none."""
    return [json.loads(line) for line, _ in lines(path)] if path.exists() else []


def read_one(path: Path, number: int) -> Any:
    """What was appended as the `number`th (from 0)."""
    line, _ = next(islice(lines(path), number, None))
    return json.loads(line)


def cut(path: Path, offset: int) -> None:
    """Take a journal back to where it had `offset` bytes, in a new file: who reads it can tell."""
    with path.open("rb") as file, written_whole(path) as aside:
        aside.write_bytes(file.read(offset))


def cut_broken_lines(path: Path) -> None:
    """Cut a journal off before its first line that cannot be read, and say so: what it told is told again."""
    if not path.exists():
        return
    whole = 0
    for line, end in lines(path):
        try:
            json.loads(line)
        except ValueError as error:
            _log.warning("%s: cut off at byte %d, where it cannot be read (%s)", path, whole, error)
            break
        whole = end
    if whole < path.stat().st_size:
        os.truncate(path, whole)


def cut_torn_line(path: Path) -> None:
    """Cut off what a killed process left of a line."""
    if not path.exists():
        return
    whole = max((end for _, end in lines(path)), default=0)
    if whole < path.stat().st_size:
        os.truncate(path, whole)
