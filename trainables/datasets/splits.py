"""The three parts of a data set, and folders of derived files that are built once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from trainables.errors import DataError
from trainables.files import file_digest, read_json, write_json, written_whole

PARTS = ("train", "tune", "test")
MARKER = "complete.json"


@dataclass(frozen=True)
class Split:
    """A COCO-format annotation file and the folder that its file names are relative to."""

    annotations: Path
    images: Path

    @cached_property
    def digest(self) -> str:
        """Identity of the annotations: of the file's bytes, wherever it lies."""
        return file_digest(self.annotations)

    @property
    def coco(self) -> dict[str, Any]:
        """The annotations; kept in this process, so not to be changed."""
        return _read(self.annotations, self.digest)


@lru_cache(maxsize=4)
def _read(path: Path, digest: str) -> dict[str, Any]:
    coco: dict[str, Any] = read_json(path, DataError)
    return coco


@dataclass(frozen=True)
class Splits:
    """`train` is learnt from, `tune` scores trials, `test` is for reported results only.

    `class_names` is the data set's own order; a scenario has its own.
    """

    train: Split
    tune: Split
    test: Split
    class_names: tuple[str, ...]


Build = Callable[[Path], tuple[Mapping[str, Path], tuple[str, ...]]]


def built_once(out: Path, recipe: Mapping[str, Any], build: Build) -> Splits:
    """The splits in the folder `out`, built if it is not there yet; `out` appears complete, or not at all.

    Args:
        out: the folder; holds `annotations/{train,tune,test}.json` and the marker file.
        recipe: JSON values that determine the content.
        build: fills a folder and returns each split's image folder (absolute, or relative to `out`) and the class
            names.

    Raises:
        DataError: `out` holds something else, or its files were changed.
    """
    out = out.absolute()  # the paths of the splits travel to processes with another working directory
    if (out / MARKER).exists():
        return _reused(out, recipe)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(str(out), ["must be a new or empty folder, but holds files that are no complete data set"])
    with _first_wins(out), written_whole(out) as folder:
        (folder / "annotations").mkdir(parents=True)
        images, class_names = build(folder)
        digests = {part: file_digest(folder / "annotations" / f"{part}.json") for part in PARTS}
        marker = {
            "recipe": dict(recipe),
            "images": {part: str(images[part]) for part in PARTS},
            "class_names": class_names,
            "digests": digests,
        }
        write_json(folder / MARKER, marker)
    return _reused(out, recipe)


@contextmanager
def _first_wins(out: Path) -> Iterator[None]:
    """Let an OSError pass if `out` is complete by now: another process built the same, and was first."""
    try:
        yield
    except OSError:
        if not (out / MARKER).exists():
            raise


def _reused(out: Path, recipe: Mapping[str, Any]) -> Splits:
    try:
        marker = json.loads((out / MARKER).read_bytes())
        splits = Splits(
            **{part: Split(out / "annotations" / f"{part}.json", out / marker["images"][part]) for part in PARTS},
            class_names=tuple(marker["class_names"]),
        )
        changed = [part for part in PARTS if getattr(splits, part).digest != marker["digests"][part]]
        built_from = marker["recipe"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(str(out), [f"is damaged: {error!r}; remove the folder to build it again"]) from error
    problems = [f"annotations/{part}.json was changed after it was built; remove the folder" for part in changed]
    wanted = json.loads(json.dumps(recipe))
    problems += [
        f"{key} must be {wanted.get(key)!r}, but the folder was built with {built_from.get(key)!r}; choose another"
        for key in sorted(wanted.keys() | built_from.keys())
        if wanted.get(key) != built_from.get(key)
    ]
    if problems:
        raise DataError(str(out), problems)
    return splits
