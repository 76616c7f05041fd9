"""Small data sets that the tests write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from trainables.datasets import Splits
from trainables.datasets.annotations import load, read
from trainables.datasets.splits import PARTS
from trainables.scenarios import VOC

Coco = dict[str, Any]
VocObject = tuple[str, tuple[Any, Any, Any, Any], int]
"""Class, first and last pixels from 1 on, and whether it is difficult."""


def write_image(path: Path, width: int = 64, height: int = 48) -> None:
    """Write a grey picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(path.suffix, np.full((height, width, 3), 128, dtype=np.uint8))
    assert done
    path.write_bytes(data.tobytes())


def pets() -> Coco:
    """Five images, categories in no order of name or id, a crowd, an empty image, a sub-folder, a unicode name."""
    return {
        "info": {"year": 2024},
        "licenses": [{"id": 7}],
        "images": [
            {"id": 30, "file_name": "a.png", "width": 64, "height": 48},
            {"id": 10, "file_name": "sub/b.png", "width": 64, "height": 48},
            {"id": 20, "file_name": "Zürich 東京.png", "width": 64, "height": 48},
            {"id": 5, "file_name": "empty.png", "width": 64, "height": 48},
            {"id": 6, "file_name": "crowd.png", "width": 64, "height": 48},
        ],
        "categories": [{"id": 90, "name": "dog"}, {"id": 3, "name": "bird"}, {"id": 17, "name": "cat"}],
        "annotations": [
            {"id": 4, "image_id": 30, "category_id": 17, "bbox": [1, 2, 10, 12], "area": 120, "iscrowd": 0},
            {"id": 2, "image_id": 30, "category_id": 90, "bbox": [20, 2, 10, 12], "area": 90.5, "iscrowd": 0},
            {"id": 9, "image_id": 10, "category_id": 3, "bbox": [0, 0, 64.4, 48], "area": 3072, "iscrowd": 0},
            {"id": 1, "image_id": 20, "category_id": 17, "bbox": [5, 5, 5, 5], "segmentation": [[5, 5, 9, 5, 9, 9]]},
            {"id": 8, "image_id": 6, "category_id": 17, "bbox": [0, 0, 30, 30], "area": 900, "iscrowd": 1},
            {"id": 7, "image_id": 20, "category_id": 90, "bbox": [1, 1, 30, 30], "area": 900, "iscrowd": 1},
        ],
    }


def left_aside(folder: Path) -> list[Path]:
    """What an interrupted write would have left in `folder`."""
    return [path for path in folder.rglob("*") if path.name.startswith(".")]


def voc_xml(objects: Sequence[VocObject]) -> str:
    """An annotation of VOC, of a picture that `write_image` writes."""
    body = "".join(
        f"<object><name>{name}</name><pose>Left</pose><truncated>1</truncated><difficult>{difficult}</difficult>"
        f"<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>"
        "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>"
        for name, (x1, y1, x2, y2), difficult in objects
    )
    return f"<annotation><size><width>64</width><height>48</height><depth>3</depth></size>{body}</annotation>"


def two_objects(number: int) -> list[VocObject]:
    """A dog over the whole picture and one of each class in turn, every second one difficult."""
    return [("dog", (1, 1, 64, 48), 0), (VOC[number % 20], ("10.6", 11, 20, 31), number % 2)]


def voc_year(
    devkit: Path, year: str, lists: Mapping[str, Sequence[str]], objects: Callable[[int], list[VocObject]] = two_objects
) -> None:
    """A year of VOC in its official layout: `objects` of each image by its place among all."""
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (devkit / year / folder).mkdir(parents=True)
    for name, stems in lists.items():
        (devkit / year / "ImageSets" / "Main" / f"{name}.txt").write_text("".join(f"{stem}\n" for stem in stems))
    for number, stem in enumerate(sorted({stem for stems in lists.values() for stem in stems})):
        (devkit / year / "Annotations" / f"{stem}.xml").write_text(voc_xml(objects(number)))
        write_image(devkit / year / "JPEGImages" / f"{stem}.jpg")


def image_ids(path: Path) -> list[int]:
    """Of a COCO file."""
    return [image["id"] for image in read(path)["images"]]


def file_names(path: Path) -> set[str]:
    """Of the images of a COCO file."""
    return {image["file_name"] for image in read(path)["images"]}


def assert_loadable(splits: Splits) -> None:
    """Every part passes the checks of `annotations.load`."""
    for part in PARTS:
        split = getattr(splits, part)
        load(split.annotations, split.images)
