"""Arrays of many rows on disk, appended and mapped."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import torch

from trainables.tables import TableWriter, opened, starts


def write(folder: Path) -> None:
    with TableWriter(folder) as table:
        table.append(names=np.array([3, 1]), rows=np.arange(6, dtype=np.float16).reshape(2, 3))
        table.append(flags=np.array([True]), rows=np.zeros((0, 3), np.float16))
        table.append(names=np.array([2]), rows=np.full((1, 3), 9, np.float16))


def test_what_was_appended_is_read_in_its_type_and_shape(tmp_path: Path) -> None:
    write(tmp_path)
    arrays = opened(tmp_path)
    assert {name: (array.dtype.str, array.shape) for name, array in arrays.items()} == {
        "names": ("<i8", (3,)),
        "rows": ("<f2", (3, 3)),
        "flags": ("|b1", (1,)),
    }
    assert arrays["names"].tolist() == [3, 1, 2]
    assert arrays["rows"].tolist() == [[0, 1, 2], [3, 4, 5], [9, 9, 9]]


def test_rows_in_any_order_of_memory_are_written_row_by_row(tmp_path: Path) -> None:
    with TableWriter(tmp_path) as table:
        table.append(rows=np.arange(6).reshape(3, 2).T)
    assert opened(tmp_path)["rows"].tolist() == [[0, 2, 4], [1, 3, 5]]


def test_an_array_without_a_row_is_there(tmp_path: Path) -> None:
    with TableWriter(tmp_path) as table:
        table.append(boxes=np.zeros((0, 4), np.float32))
    empty = opened(tmp_path)["boxes"]
    assert (empty.dtype, empty.shape) == (np.float32, (0, 4))


@pytest.mark.parametrize("rows", [np.zeros((1, 3)), np.zeros((1, 4), np.float32)], ids=["type", "shape"])
def test_rows_of_another_kind_are_our_own_mistake(tmp_path: Path, rows: np.ndarray) -> None:
    with TableWriter(tmp_path) as table:
        table.append(rows=np.zeros((2, 3), np.float32))
        with pytest.raises(AssertionError, match="rows"):
            table.append(rows=rows)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is full")
def test_a_table_that_could_not_be_written_is_none(tmp_path: Path) -> None:
    (tmp_path / "rows.bin").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as raised, TableWriter(tmp_path) as table:
        table.append(rows=np.zeros((1000, 1000)))
    assert raised.value.errno == errno.ENOSPC
    assert not (tmp_path / "arrays.json").exists()


def test_who_writes_to_what_was_read_changes_no_file(tmp_path: Path) -> None:
    write(tmp_path)
    torch.from_numpy(opened(tmp_path)["rows"]).zero_()
    assert opened(tmp_path)["rows"].tolist() == [[0, 1, 2], [3, 4, 5], [9, 9, 9]]


def test_groups_begin_where_the_last_one_ended() -> None:
    assert starts(np.array([2, 0, 3], np.int32)).tolist() == [0, 2, 2, 5]
    assert starts(np.array([2**31, 2**31], np.int64)).tolist() == [0, 2**31, 2**32]
    assert starts(np.zeros(0, np.int64)).tolist() == [0]
