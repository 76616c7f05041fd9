"""COCO 2017 in its official layout, and any other data set in COCO format."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from trainables.datasets.annotations import load_all
from trainables.datasets.annotations import write as write_annotations
from trainables.datasets.splits import PARTS, Split, Splits, built_once
from trainables.datasets.steps import Coco, subset
from trainables.errors import DataError
from trainables.files import digest, file_digest


def write(root: Path, out: Path, num_tune: int = 5000, seed: int = 0) -> Splits:
    """The splits of COCO 2017: tune = a seeded part of train2017, train = the rest, test = val2017.

    Args:
        root: holds `annotations/instances_{train,val}2017.json` and the folders `train2017` and `val2017`.
        out: the annotation files are written to a folder in here, never into `root`.
        num_tune: number of tune images.

    Raises:
        DataError: every fault of both annotation files. Boxes without an area, of which the official files hold a
            few, are dropped with a warning.
    """
    return _write("coco", out, official(root), num_tune, seed)


def official(root: Path) -> dict[str, Split]:
    """Where train and test are in the official layout of COCO 2017."""
    return {
        part: Split(root / "annotations" / f"instances_{name}.json", root / name)
        for part, name in (("train", "train2017"), ("test", "val2017"))
    }


def custom(
    train: Split, test: Split, out: Path, tune: Split | None = None, num_tune: int | None = None, seed: int = 0
) -> Splits:
    """The splits of a data set in COCO format; without `tune`, a seeded part of `train` becomes it.

    Args:
        train: annotation file and image folder; so are `test` and `tune`.
        out: the annotation files are written to a folder in here.
        num_tune: number of tune images if there is no `tune`; None takes a tenth of train.

    Raises:
        DataError: every fault of all annotation files.
    """
    parts = {"train": train, "test": test} | ({"tune": tune} if tune else {})
    return _write("custom", out, parts, num_tune, seed)


def divided(train: Coco, num_tune: int | None, seed: int) -> tuple[Coco, Coco]:
    """`train` divided by images into the rest and a seeded tune part of `num_tune` images (None: a tenth).

    Raises:
        DataError: one of the parts would have no image.
    """
    ids = sorted(image["id"] for image in train["images"])
    number = max(len(ids) // 10, 1) if num_tune is None else num_tune
    if not 0 < number < len(ids):
        raise DataError("num_tune", [f"`0 < num_tune < {len(ids)}` (train images) must hold, but got {number}"])
    chosen = set(random.Random(seed).sample(ids, number))
    return subset(train, set(ids) - chosen), subset(train, chosen)


def _write(kind: str, out: Path, parts: Mapping[str, Split], num_tune: int | None, seed: int) -> Splits:
    parts = {part: Split(split.annotations.absolute(), split.images.absolute()) for part, split in parts.items()}
    missing = [str(split.annotations) for split in parts.values() if not split.annotations.is_file()]
    if missing:
        raise DataError("data", [f"{path}: the annotation file does not exist" for path in missing])
    recipe = {
        "kind": kind,
        "num_tune": num_tune,
        "seed": seed,
        "sources": {part: file_digest(split.annotations) for part, split in parts.items()},
        "images": {part: str(split.images) for part, split in parts.items()},
    }
    build = partial(_build, parts=parts, num_tune=num_tune, seed=seed, official=kind == "coco")
    return built_once(out / f"{kind}-{digest(recipe)}", recipe, build)


def _build(
    folder: Path, parts: Mapping[str, Split], num_tune: int | None, seed: int, official: bool
) -> tuple[Mapping[str, Path], tuple[str, ...]]:
    loaded = load_all(parts, drop_empty_boxes=official)
    images = {part: split.images for part, split in parts.items()}
    if "tune" not in loaded:
        loaded["train"], loaded["tune"] = divided(loaded["train"], num_tune, seed)
        images["tune"] = images["train"]
    for part in PARTS:
        write_annotations(folder / "annotations" / f"{part}.json", loaded[part])
    return images, tuple(category["name"] for category in loaded["train"]["categories"])
