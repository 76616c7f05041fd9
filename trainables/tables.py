"""Tables: arrays of any size in files, written in one pass, then memory-mapped and so shared by all trials of a host.

A table is a folder: one file an array, raw, and `arrays.json` with their types and shapes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import torch
from mmdet.structures import DetDataSample
from numpy.typing import NDArray
from torch import Tensor

from trainables.files import read_json, write_json
from trainables.records import FACTS_FILE

ARRAYS_FILE = "arrays.json"

Array = NDArray[Any]


class TableWriter:
    """Appends rows to the arrays of a table; the table can be read once the context is left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, BinaryIO] = {}
        self._shapes: dict[str, tuple[str, list[int]]] = {}

    def __enter__(self) -> TableWriter:
        return self

    def append(self, **arrays: Array) -> None:
        """Add rows: each array's type and the shape of its rows stay those of its first call."""
        for name, rows in arrays.items():
            dtype, shape = self._shapes.setdefault(name, (rows.dtype.str, [0, *rows.shape[1:]]))
            assert (dtype, shape[1:]) == (rows.dtype.str, list(rows.shape[1:])), name
            if name not in self._files:
                self._files[name] = (self.folder / f"{name}.bin").open("wb")
            self._files[name].write(np.ascontiguousarray(rows).data)  # whose error names a full disk
            shape[0] += len(rows)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()
        if kind is None:
            write_json(self.folder / ARRAYS_FILE, self._shapes)


def opened(folder: Path) -> dict[str, Array]:
    """The arrays of a table by name; their pages are read when they are used, and shared by all processes."""
    arrays = read_json(folder / ARRAYS_FILE)
    return {name: _mapped(folder / f"{name}.bin", dtype, tuple(shape)) for name, (dtype, shape) in arrays.items()}


def _mapped(path: Path, dtype: str, shape: tuple[int, ...]) -> Array:
    if not math.prod(shape):
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, mode="c", shape=shape)  # copy on write: torch warns about arrays that it cannot write


def starts(counts: Array) -> Array:
    """(R + 1,) where the rows of each of R groups begin, and where the last ends, from their counts (R,)."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def spans(begins: Array, rows: list[int]) -> tuple[Tensor, Array]:
    """Of the groups `rows`: for every member its place in `rows`, as a tensor (K,), and its index, as an array (K,)."""
    counts = [int(begins[row + 1] - begins[row]) for row in rows]
    members = [np.arange(begins[row], begins[row + 1]) for row in rows]
    return torch.arange(len(rows)).repeat_interleave(torch.tensor(counts)), np.concatenate(members)


class Rows:
    """Finds the row of an image, as it is or flipped, in a table that holds both.

    Args:
        arrays: of a table whose rows were written with `row_keys`.
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        pairs = zip(arrays["image_ids"].tolist(), arrays["flipped"].tolist(), strict=True)
        self._rows = {pair: row for row, pair in enumerate(pairs)}

    def __contains__(self, sample: DetDataSample) -> bool:
        return _row_key(sample) in self._rows

    def __call__(self, samples: Sequence[DetDataSample]) -> list[int]:
        """The row of each sample."""
        return [self._rows[_row_key(sample)] for sample in samples]


def row_keys(samples: Sequence[DetDataSample]) -> dict[str, Array]:
    """What `Rows` finds the rows of `samples` by."""
    image_ids, flipped = zip(*map(_row_key, samples), strict=True)
    return {"image_ids": np.array(image_ids), "flipped": np.array(flipped)}


def _row_key(sample: DetDataSample) -> tuple[int, bool]:
    return sample.img_id, bool(sample.get("flip", False))


def with_facts(build: Callable[[Path], None], images: int) -> Callable[[Path], None]:
    """`build`, and in the folder of its table how many images it took, the bytes and the seconds."""

    def timed(folder: Path) -> None:
        begin = time.perf_counter()
        build(folder)
        num_bytes = sum(path.stat().st_size for path in folder.iterdir())
        seconds = time.perf_counter() - begin
        write_json(folder / FACTS_FILE, {"build_s": seconds, "images": images, "num_bytes": num_bytes})

    return timed
