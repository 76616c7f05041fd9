"""COCO-format annotation files: read, check, write.

What a person hands in is checked completely before anything is derived from it, and every fault is named at once.
"""

from __future__ import annotations

import logging
import os
import reprlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from trainables.datasets.splits import Split
from trainables.datasets.steps import Coco, training_set
from trainables.errors import DataError, capped
from trainables.files import read_json, write_json
from trainables.scenarios import Scenario

MAX_SIDE = 1 << 20  # pixels; OpenCV reads no larger image
EDGE = 1.0  # pixels; boxes that touch the border leave it by float noise in real data, COCO's own included

Entry = dict[str, Any]
logger = logging.getLogger(__name__)


def load(path: Path, images: Path, drop_empty_boxes: bool = False) -> Coco:
    """The checked content of a COCO instances file, each annotation with `area` and `iscrowd` and without its mask.

    Args:
        path: the annotation file.
        images: the folder that the file names are relative to.
        drop_empty_boxes: drop boxes without an area with a warning, for the official files; else they are faults.

    Raises:
        DataError: everything that is wrong with the file, as far as `capped` goes.
    """
    coco = read(path)
    if drop_empty_boxes:
        coco = without_empty_boxes(coco, path)
    if problems := capped(faults(coco, images)):
        raise DataError(str(path), problems)
    return normalised(coco)


def load_all(splits: Mapping[str, Split], drop_empty_boxes: bool = False) -> dict[str, Coco]:
    """The checked content of several files by name; the faults of all files are raised together.

    Raises:
        DataError: see `load`.
    """
    loaded: dict[str, Coco] = {}
    problems: list[str] = []
    for name, split in splits.items():
        try:
            loaded[name] = load(split.annotations, split.images, drop_empty_boxes)
        except DataError as error:
            problems += [f"{error.subject}: {problem}" for problem in error.problems]
    if problems:
        raise DataError("data", problems)
    return loaded


def read(path: Path) -> Any:
    """The content of an annotation file, unchecked: enough for the files of prepared splits.

    Raises:
        DataError: the file is missing or is not JSON.
    """
    return read_json(path, DataError)


def write(path: Path, coco: Coco) -> None:
    """Write `coco` whole, always the same bytes for the same content.

    `info` and `licenses` are always written: pycocotools 2.0.9 and 2.0.10 fail without `info`.

    Raises:
        DataError: a number somewhere in it is not finite.
    """
    try:
        write_json(path, {"info": {}, "licenses": []} | coco)
    except ValueError as error:
        raise DataError(path.name, [f"every number must be finite, in whatever key, but: {error}"]) from error


def normalised(coco: Coco) -> Coco:
    """`coco` with `area` and `iscrowd` on every annotation, `ignore` merged into `iscrowd`, and without masks."""
    annotations = [
        {key: value for key, value in annotation.items() if key not in ("segmentation", "ignore")}
        | {
            "area": annotation.get("area", annotation["bbox"][2] * annotation["bbox"][3]),
            "iscrowd": int(bool(annotation.get("iscrowd", 0) or annotation.get("ignore", 0))),
        }
        for annotation in coco["annotations"]
    ]
    return {"info": {}, "licenses": []} | coco | {"annotations": annotations}


def without_empty_boxes(coco: Any, source: Path) -> Any:
    """`coco` without the boxes that have no width or no height; a warning says how many these were.

    The official files hold a few; in anyone else's data such a box is a fault that `load` reports.
    """
    if not isinstance(coco, dict) or not isinstance(coco.get("annotations"), list):
        return coco
    kept = [annotation for annotation in coco["annotations"] if not _has_empty_box(annotation)]
    if dropped := len(coco["annotations"]) - len(kept):
        logger.warning("%s: dropped %d boxes without an area", source, dropped)
    return coco | {"annotations": kept}


def require_classes(coco: Coco, scenario: Scenario) -> None:
    """Return if `coco` can serve every step of `scenario`.

    Raises:
        DataError: every class that has no category, and every step that no image has a valid box for.
    """
    names = [category["name"] for category in coco["categories"]]
    problems = [
        f"class {name!r} is not in the data; available: {', '.join(names)}"
        for name in scenario.class_names
        if name not in names
    ]
    for step, group in enumerate(scenario.steps):
        present = [name for name in group if name in names]
        if present and not training_set(coco, present)["images"]:
            problems.append(f"step {step} ({', '.join(group)}): no image has a box of its classes")
    if problems:
        raise DataError(f"scenario {scenario.name}", problems)


def faults(coco: Any, images: Path) -> Iterator[str]:
    """Yield what keeps `coco` from being a data set whose images lie in the folder `images`."""
    if not isinstance(coco, dict):
        yield f"the file must hold an object with images, annotations and categories, but got {reprlib.repr(coco)}"
        return
    lists = ("images", "annotations", "categories")
    wrong = [key for key in lists if not isinstance(coco.get(key), list)]
    yield from (f"{key} must be a list, but {_given(coco, key)}" for key in wrong)
    if wrong:
        return
    yield from (f"{key} must not be empty" for key in ("images", "categories") if not coco[key])
    for key in lists:
        yield from _id_faults(key, coco[key])
    yield from _image_faults(coco["images"], images)
    yield from _category_faults(coco["categories"])
    yield from _annotation_faults(coco)


def _id_faults(key: str, entries: list[Any]) -> Iterator[str]:
    first: dict[int, int] = {}
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            yield f"{key}[{index}] must be an object, but got {reprlib.repr(entry)}"
        elif type(entry.get("id")) is not int:
            yield f"{key}[{index}].id must be an integer, but {_given(entry, 'id')}"
        elif (earlier := first.setdefault(entry["id"], index)) != index:
            yield f"{key}[{index}].id must be unique, but {entry['id']} is also the id of {key}[{earlier}]"


def _image_faults(entries: list[Any], images: Path) -> Iterator[str]:
    for index, image in _objects(entries):
        for key in ("width", "height"):
            if not _is_number(image.get(key)) or not 0 < image[key] <= MAX_SIDE:
                must = f"must be a number of pixels above 0, at most {MAX_SIDE}"
                yield f"images[{index}].{key} {must}, but {_given(image, key)}"
        name = image.get("file_name")
        where = f"images[{index}].file_name"
        if not isinstance(name, str) or not name:
            yield f"{where} must be the name of a file, but {_given(image, 'file_name')}"
        elif PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            yield f"{where} must stay inside {images}, but got {name!r}"
        elif not os.path.isfile(images / name):  # Path.is_file raises if a name is too long
            yield f"{where} must be a file in {images}, but there is no {name!r}"


def _category_faults(entries: list[Any]) -> Iterator[str]:
    names = Counter(category["name"] for _, category in _objects(entries) if isinstance(category.get("name"), str))
    for index, category in _objects(entries):
        name = category.get("name")
        if not isinstance(name, str) or not name:
            yield f"categories[{index}].name must be a name, but {_given(category, 'name')}"
        elif names[name] > 1:
            yield f"categories[{index}].name must be unique, but {names[name]} categories are named {name!r}"


def _annotation_faults(coco: Coco) -> Iterator[str]:
    images = {image["id"]: image for _, image in _objects(coco["images"]) if type(image.get("id")) is int}
    categories = {category["id"] for _, category in _objects(coco["categories"]) if type(category.get("id")) is int}
    for index, annotation in _objects(coco["annotations"]):
        where = f"annotations[{index}]"
        image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
        if type(image_id) is not int or image_id not in images:
            yield f"{where}.image_id must be the id of an image, but {_given(annotation, 'image_id')}"
        if type(category_id) is not int or category_id not in categories:
            yield f"{where}.category_id must be the id of a category, but {_given(annotation, 'category_id')}"
        for key in ("iscrowd", "ignore"):
            if annotation.get(key, 0) not in (0, 1):
                yield f"{where}.{key} must be 0 or 1, but {_given(annotation, key)}"
        area = annotation.get("area", 0)
        if not _is_number(area) or area < 0:
            yield f"{where}.area must be a number of square pixels, but {_given(annotation, 'area')}"
        image = images.get(image_id) if type(image_id) is int else None
        if fault := _box_fault(annotation, image):
            yield f"{where}.bbox {fault}"


def _box_fault(annotation: Entry, image: Entry | None) -> str | None:
    if not _is_box(box := annotation.get("bbox")):
        return f"must be four finite numbers [x, y, width, height], but {_given(annotation, 'bbox')}"
    x, y, width, height = box
    if width <= 0 or height <= 0:
        return f"must have a width and a height above 0, but got {box}"
    if image is None or not (_is_number(image.get("width")) and _is_number(image.get("height"))):
        return None
    inside = x >= -EDGE and y >= -EDGE and x + width <= image["width"] + EDGE and y + height <= image["height"] + EDGE
    reaches_in = x < image["width"] and y < image["height"] and x + width > 0 and y + height > 0
    if inside and reaches_in:
        return None
    return f"must lie inside image {image['id']} ({image['width']} x {image['height']} pixels), but got {box}"


def _has_empty_box(annotation: Any) -> bool:
    box = annotation.get("bbox") if isinstance(annotation, dict) else None
    return _is_box(box) and min(box[2:]) <= 0


def _is_box(box: Any) -> TypeGuard[list[float]]:
    return isinstance(box, list) and len(box) == 4 and all(_is_number(value) for value in box)


def _objects(entries: list[Any]) -> Iterator[tuple[int, Entry]]:
    return ((index, entry) for index, entry in enumerate(entries) if isinstance(entry, dict))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _given(entry: Entry, key: str) -> str:
    return f"got {reprlib.repr(entry[key])}" if key in entry else "it is missing"
