"""What is left of a journal that something broke."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from trainables.journal import Journal, append, cut_broken_lines, read


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (b'{"a":1}\n{"b":2}\n', [{"a": 1}, {"b": 2}]),
        (b'{"a":1}\n{"b":', [{"a": 1}]),  # a killed process
        (b'{"a":1}\n{"b"\xff2}\n{"c":3}\n', [{"a": 1}]),  # a flipped bit: what follows is told again as well
        (b"\x00\x00\x00\n", []),
        (b"", []),
    ],
)
def test_a_journal_ends_before_the_first_line_that_cannot_be_read(
    tmp_path: Path, broken: bytes, expected: list[object]
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(broken)
    cut_broken_lines(path)
    assert read(path) == expected
    append(path, "next")
    assert read(path) == [*expected, "next"]


def test_a_line_that_a_full_disk_takes_in_part_is_as_if_never_begun(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "events.jsonl")
    journal.append("one")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.num_bytes + 10, before[1]))
    try:
        with pytest.raises(OSError, match="No space left"):
            journal.append("x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    journal.append("two")
    assert read(journal.path) == ["one", "two"]
