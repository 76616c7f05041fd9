"""PASCAL VOC 2007 and 2012 in their official layout, turned into COCO-format splits.

VOCdevkit/VOC2007/{Annotations,ImageSets/Main,JPEGImages}
VOCdevkit/VOC2012/{Annotations,ImageSets/Main,JPEGImages}
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from trainables.datasets.annotations import faults, without_empty_boxes
from trainables.datasets.annotations import write as write_annotations
from trainables.datasets.coco import divided
from trainables.datasets.splits import PARTS, Splits, built_once
from trainables.datasets.steps import Coco
from trainables.errors import DataError, capped
from trainables.files import digest, file_digest, read_at_most
from trainables.scenarios import VOC

YEARS = ("VOC2007", "VOC2012")
MAX_XML_BYTES = 1 << 20
MAX_LIST_BYTES = 64 << 20
INFO = {"description": "PASCAL VOC"}

Lists = list[tuple[str, str]]  # (year folder, image set)


def write(root: Path, out: Path, num_tune: int | None = None, seed: int = 0) -> Splits:
    """The splits of PASCAL VOC: train and tune from trainval of the years present, test = VOC2007 test.

    Without VOC2007 test, VOC2012 val is the test and VOC2012 gives its `train` list alone. An object marked
    `difficult` becomes a crowd box: not learnt, and ignored in evaluation. Boxes are 1-based in VOC; 1 is subtracted
    from every coordinate, as mmdet does.

    Args:
        root: the folder that holds `VOCdevkit`, or that folder itself.
        out: the annotation files are written to a folder in here.
        num_tune: number of tune images; None takes a tenth.

    Raises:
        DataError: missing lists, and every fault of the XML files and the images.
    """
    devkit = _devkit(root)
    train, test = _image_sets(devkit)
    recipe = {
        "kind": "voc",
        "num_tune": num_tune,
        "seed": seed,
        "sources": {f"{year}/{name}": _source_digest(devkit, year, name) for year, name in [*train, *test]},
        "images": str(devkit),
    }
    build = partial(_build, devkit=devkit, train=train, test=test, num_tune=num_tune, seed=seed)
    return built_once(out / f"voc-{digest(recipe)}", recipe, build)


def _source_digest(devkit: Path, year: str, name: str) -> str:
    """Identity of a list and of the annotations that it names."""
    path = _list_file(devkit, year, name)
    return digest([file_digest(path), *(_digest(_xml_file(devkit, year, stem)) for stem in _stems(path))])


def _digest(path: Path) -> str | None:
    try:
        return file_digest(path)
    except (OSError, ValueError):  # which `_coco` tells, with all others
        return None


def missing(root: Path) -> list[str]:
    """Lines on what the folder lacks of the official layout."""
    try:
        _image_sets(_devkit(root))
    except DataError as error:
        return [f"{error.subject} {line}" for line in error.problems]
    return []


def is_voc(coco: Coco) -> bool:
    """Whether annotations were made from VOC's own files."""
    return bool(coco.get("info") == INFO)


def _devkit(root: Path) -> Path:
    return (root / "VOCdevkit" if (root / "VOCdevkit").is_dir() else root).absolute()


def _image_sets(devkit: Path) -> tuple[Lists, Lists]:
    """The lists that train and test are made of."""
    has = {
        (year, name): _list_file(devkit, year, name).is_file()
        for year in YEARS
        for name in ("trainval", "train", "val", "test")
    }
    test = ("VOC2007", "test") if has["VOC2007", "test"] else ("VOC2012", "val")
    newer = "train" if test == ("VOC2012", "val") else "trainval"
    train = [pair for pair in (("VOC2007", "trainval"), ("VOC2012", newer)) if has[pair]]
    problems = []
    if not has[test]:
        problems.append("must hold VOC2007/ImageSets/Main/test.txt or VOC2012/ImageSets/Main/val.txt, but has neither")
    if not train:
        problems.append(f"must hold ImageSets/Main/trainval.txt of VOC2007 or {newer}.txt of VOC2012, but has neither")
    if problems:
        raise DataError(str(devkit), problems)
    return train, [test]


def _build(
    folder: Path, devkit: Path, train: Lists, test: Lists, num_tune: int | None, seed: int
) -> tuple[Mapping[str, Path], tuple[str, ...]]:
    problems: list[str] = []
    learnt, held_out = (_coco(devkit, lists, problems) for lists in (train, test))
    if problems:
        raise DataError(str(devkit), capped(problems))
    parts = {"test": held_out}
    parts["train"], parts["tune"] = divided(learnt, num_tune, seed)
    for part in PARTS:
        write_annotations(folder / "annotations" / f"{part}.json", parts[part])
    return dict.fromkeys(PARTS, devkit), VOC


def _coco(devkit: Path, lists: Lists, problems: list[str]) -> Coco:
    """The images of `lists` as a COCO dict; what is wrong with them is added to `problems`."""
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for year, name in lists:
        for stem in _stems(_list_file(devkit, year, name)):
            try:
                if Path(stem).name != stem:
                    raise ValueError(f"the list {name}.txt must hold names, but holds a path")
                tree = _parse(_xml_file(devkit, year, stem))
                width, height = (_pixels(tree, f"size/{key}") for key in ("width", "height"))
                found = [_object(element) for element in tree.iterfind("object")]
            except (OSError, ValueError, ET.ParseError) as error:
                problems.append(f"{year}/Annotations/{stem}.xml: {error}")
                continue
            image_id = len(images) + 1
            images.append(
                {"id": image_id, "file_name": f"{year}/JPEGImages/{stem}.jpg", "width": width, "height": height}
            )
            boxes += [
                {"id": len(boxes) + number, "image_id": image_id} | box for number, box in enumerate(found, start=1)
            ]
    coco: Coco = {
        "info": INFO,
        "images": images,
        "annotations": boxes,
        "categories": [{"id": label, "name": name} for label, name in enumerate(VOC, start=1)],
    }
    coco = without_empty_boxes(coco, devkit)
    problems.extend(faults(coco, devkit))
    return coco


def _list_file(devkit: Path, year: str, name: str) -> Path:
    return devkit / year / "ImageSets" / "Main" / f"{name}.txt"


def _xml_file(devkit: Path, year: str, stem: str) -> Path:
    return devkit / year / "Annotations" / f"{stem}.xml"


def _stems(path: Path) -> Iterator[str]:
    try:
        text = read_at_most(path, MAX_LIST_BYTES).decode()
    except (OSError, ValueError) as error:
        raise DataError(str(path), [f"must be a list of names, but cannot be read: {error}"]) from error
    return (line.strip() for line in text.splitlines() if line.strip())


class _NoDoctype(ET.TreeBuilder):
    """Refuses a document type, and with it every entity that one could define."""

    def doctype(self, name: str, pubid: str, system: str) -> None:
        raise ValueError("must not have a DOCTYPE")


def _parse(path: Path) -> ET.Element:
    return ET.fromstring(read_at_most(path, MAX_XML_BYTES), ET.XMLParser(target=_NoDoctype()))


def _object(element: ET.Element) -> dict[str, Any]:
    name = (element.findtext("name") or "").strip()
    if name not in VOC:
        raise ValueError(f"object name {name!r} is unknown; available: {', '.join(VOC)}")
    x1, y1, x2, y2 = (_pixels(element, f"bndbox/{key}") - 1 for key in ("xmin", "ymin", "xmax", "ymax"))
    difficult = (element.findtext("difficult") or "0").strip() == "1"
    return {
        "category_id": VOC.index(name) + 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": int(difficult),
    }


def _pixels(element: ET.Element, key: str) -> int:
    text = element.findtext(key)
    try:
        return int(float(text or ""))  # VOC2012 has a few coordinates with decimals
    except (ValueError, OverflowError):
        raise ValueError(f"{key} must be a number of pixels, but got {text!r}") from None
