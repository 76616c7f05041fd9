"""What a step sees of a data set in COCO format: pure functions from a COCO dict to a smaller one.

Categories are found by name, never by position or id. Category ids stay those of the file; label ids, which are
positions in the scenario's class order, enter in `detection.py` alone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from trainables.errors import DataError

Coco = dict[str, Any]


def training_set(coco: Coco, class_names: Sequence[str]) -> Coco:
    """The images with at least one valid box of `class_names`, and of all boxes only those of `class_names`.

    Boxes of earlier and of later classes are removed: an unlabelled object is background.
    A crowd box of the classes stays, but brings no image in: no assigner learns it, and its region is background, as in
    mmdet's own configurations.

    Args:
        coco: images, annotations, categories; any category ids in any order.
        class_names: the classes to learn; the categories of the result are in this order.

    Raises:
        DataError: a class that `coco` has no category for.
    """
    categories = _categories(coco, class_names)
    kept = _annotations_of(coco, categories)
    shown = {annotation["image_id"] for annotation in kept if is_object(annotation)}
    images = [image for image in coco["images"] if image["id"] in shown]
    annotations = [annotation for annotation in kept if annotation["image_id"] in shown]
    return _like(coco, images, annotations, categories)


def evaluation_set(coco: Coco, class_names: Sequence[str]) -> Coco:
    """All images, and of the boxes only those of `class_names`: old and new AP stay comparable over the steps.

    Args:
        coco: images, annotations, categories; any category ids in any order.
        class_names: the classes seen so far; the categories of the result are in this order.

    Raises:
        DataError: a class that `coco` has no category for.
    """
    categories = _categories(coco, class_names)
    return _like(coco, coco["images"], _annotations_of(coco, categories), categories)


def subset(coco: Coco, image_ids: Collection[int]) -> Coco:
    """The images with `image_ids`, in the order of `coco`, with all their annotations and with every category."""
    images = [image for image in coco["images"] if image["id"] in image_ids]
    annotations = [annotation for annotation in coco["annotations"] if annotation["image_id"] in image_ids]
    return _like(coco, images, annotations, coco["categories"])


def is_object(annotation: dict[str, Any]) -> bool:
    """Whether an annotation is an object to learn: no crowd, and a box with an area."""
    width, height = annotation["bbox"][2:]
    return not annotation.get("iscrowd", 0) and width > 0 and height > 0


def category_ids(coco: Coco, class_names: Sequence[str]) -> list[int]:
    """The category id of each class.

    Raises:
        DataError: a class that `coco` has no category for.
    """
    return [category["id"] for category in _categories(coco, class_names)]


def _categories(coco: Coco, class_names: Sequence[str]) -> list[dict[str, Any]]:
    by_name = {category["name"]: category for category in coco["categories"]}
    if missing := [name for name in class_names if name not in by_name]:
        raise DataError(
            "annotations", [f"no category is named {name!r}; available: {', '.join(by_name)}" for name in missing]
        )
    return [by_name[name] for name in class_names]


def _annotations_of(coco: Coco, categories: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ids = {category["id"] for category in categories}
    return [annotation for annotation in coco["annotations"] if annotation["category_id"] in ids]


def _like(
    coco: Coco, images: list[dict[str, Any]], annotations: list[dict[str, Any]], categories: list[dict[str, Any]]
) -> Coco:
    parts = {"images": images, "annotations": annotations, "categories": categories}
    return {"info": {}, "licenses": []} | coco | parts
