"""COCO's box AP of one step: the 12 summary figures, and every class by itself, unrounded.

The C++ evaluator gives pycocotools' figures to the last bits, faster; tests hold the two together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from trainables.errors import DataError, capped
from trainables.metrics import FloatArray


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What COCO's protocol says of one set of detections, as fractions.

    Attributes:
        stats: (12,) COCO's summary, in COCO's order; -1 where there is no ground truth.
        per_class: (C,) for each of the 12 figures, by name and in the order of `stats`: the `KINDS` of
            `trainables.metrics`, then `ar1`, `ar10`, `ar100`, `ar_small`, `ar_medium`, `ar_large`. Classes are in the
            order that was asked for; nan where a class has no ground truth of that kind.
        ap_by_iou: (C, 10) AP of each class at IoU 0.50, 0.55 .. 0.95; nan where a class has no ground truth.
    """

    stats: FloatArray
    per_class: Mapping[str, FloatArray]
    ap_by_iou: FloatArray


def evaluate(
    ground_truth: Mapping[str, Any],
    detections: Sequence[Mapping[str, Any]],
    category_ids: Sequence[int],
    image_ids: Sequence[int] | None = None,
) -> Evaluation:
    """The evaluation of `detections` on the classes `category_ids`; annotations and detections of others are left out.

    Args:
        ground_truth: a COCO annotation file, read; `iscrowd` marks the regions that are ignored.
        detections: COCO results: image_id, category_id, bbox (x, y, width, height in pixels), score. May be empty.
        category_ids: in the order in which the classes are wanted, such as that of the scenario.
        image_ids: the images to evaluate on; all by default, also those that hold none of the classes.

    Raises:
        DataError: ids that the ground truth does not know, ids given twice, or boxes and scores that are not finite.
    """
    known_images = [image["id"] for image in ground_truth["images"]]
    images = known_images if image_ids is None else list(image_ids)
    known_categories = [category["id"] for category in ground_truth["categories"]]
    problems = [
        *_id_problems("category_ids", category_ids, known_categories),
        *_id_problems("image_ids", images, known_images),
        *_detection_problems(detections, known_images),
    ]
    if problems:
        raise DataError("evaluation", problems)
    truth = [
        _annotation(number, record, record["area"], iscrowd=int(record.get("iscrowd", 0)))
        for number, record in enumerate(_chosen(ground_truth["annotations"], images, category_ids), start=1)
    ]
    found = [
        _annotation(number, record, record["bbox"][2] * record["bbox"][3], score=record["score"])
        for number, record in enumerate(_chosen(detections, images, category_ids), start=1)
    ]
    evaluator = COCOeval_faster(_coco(images, category_ids, truth), _coco(images, category_ids, found), iouType="bbox")
    evaluator.evaluate()
    evaluator.accumulate()
    columns = np.searchsorted(np.sort(category_ids), category_ids)  # the evaluator sorts the ids
    return _evaluation(evaluator.eval["precision"][:, :, columns], evaluator.eval["recall"][:, columns])


def _evaluation(precision: FloatArray, recall: FloatArray) -> Evaluation:
    """The figures of COCOeval's arrays.

    Args:
        precision: (IoU, recall, C, area, max detections); -1 where there is no ground truth.
        recall: (IoU, C, area, max detections); the same.
    """
    everywhere, small, medium, large = range(4)
    at_1, at_10, at_100 = range(3)
    tables = {
        "ap": precision[..., everywhere, at_100],
        "ap50": precision[0, ..., everywhere, at_100],
        "ap75": precision[5, ..., everywhere, at_100],
        "ap_small": precision[..., small, at_100],
        "ap_medium": precision[..., medium, at_100],
        "ap_large": precision[..., large, at_100],
        "ar1": recall[..., everywhere, at_1],
        "ar10": recall[..., everywhere, at_10],
        "ar100": recall[..., everywhere, at_100],
        "ar_small": recall[..., small, at_100],
        "ar_medium": recall[..., medium, at_100],
        "ar_large": recall[..., large, at_100],
    }
    return Evaluation(
        stats=np.array([_mean_of_defined(table, otherwise=-1.0) for table in tables.values()]),
        per_class={kind: _per_class(table) for kind, table in tables.items()},
        ap_by_iou=np.array([_per_class(at_iou) for at_iou in precision[..., everywhere, at_100]]).T,
    )


def _per_class(table: FloatArray) -> FloatArray:
    """(C,) the mean of each class of `table` (..., C)."""
    return np.array([_mean_of_defined(column, otherwise=np.nan) for column in np.moveaxis(table, -1, 0)])


def _mean_of_defined(table: FloatArray, otherwise: float) -> float:
    defined = table[table > -1]
    return float(defined.mean()) if defined.size else otherwise


def _chosen(
    records: Iterable[Mapping[str, Any]], images: Sequence[int], category_ids: Sequence[int]
) -> Iterator[Mapping[str, Any]]:
    wanted_images, wanted_categories = set(images), set(category_ids)
    return (
        record
        for record in records
        if record["image_id"] in wanted_images and record["category_id"] in wanted_categories
    )


def _annotation(number: int, record: Mapping[str, Any], area: float, **more: float) -> dict[str, Any]:
    """The evaluator's view of a record, numbered from 1: it takes the id 0 for "matched with nothing"."""
    return {
        "id": number,
        "image_id": record["image_id"],
        "category_id": record["category_id"],
        "bbox": list(record["bbox"]),  # it refuses tuples
        "area": area,
        **more,
    }


def _coco(images: Sequence[int], category_ids: Sequence[int], annotations: list[dict[str, Any]]) -> COCO:
    return COCO(
        {
            "images": [{"id": image_id} for image_id in images],
            "categories": [{"id": category_id} for category_id in category_ids],
            "annotations": annotations,
        }
    )


def _id_problems(name: str, ids: Sequence[int], known: Sequence[int]) -> list[str]:
    problems = []
    if unknown := sorted(set(ids) - set(known)):
        problems.append(f"{name}: {_few(unknown)} not in the ground truth")
    if repeated := sorted(i for i, times in Counter(ids).items() if times > 1):
        problems.append(f"{name}: {_few(repeated)} given more than once")
    return problems


def _detection_problems(detections: Sequence[Mapping[str, Any]], known_images: Sequence[int]) -> list[str]:
    problems = []
    if unknown := sorted({found["image_id"] for found in detections} - set(known_images)):
        problems.append(f"detections: image_id {_few(unknown)} not in the ground truth")
    values = np.array([(*found["bbox"], found["score"]) for found in detections], dtype=np.float64).reshape(-1, 5)
    if bad := int((~np.isfinite(values)).any(axis=1).sum()):
        problems.append(f"detections: boxes and scores must be finite, but {bad} of {len(detections)} are not")
    return problems


def _few(ids: Sequence[int]) -> str:
    return ", ".join(capped(map(str, ids), 5))
