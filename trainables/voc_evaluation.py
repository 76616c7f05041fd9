"""VOC's average precision: 11 points (VOC2007) or the area under the curve (VOC2010), at ten IoU thresholds.

Always named with its protocol: repository HikariTJU/LD reports AP50 as mAP. Objects that are crowd or `difficult` are
ignored: a detection of one is neither right nor wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainables.metrics import FloatArray

IOUS = tuple(number / 100 for number in range(50, 100, 5))
EPS = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class VOCRow:
    """Of one class: its objects, its detections, and at each IoU of `IOUS` the recall and by protocol AP, as fractions;
    both are nan where there is no object.
    """

    gts: int
    dets: int
    recall: FloatArray
    ap: Mapping[str, FloatArray]


def evaluate_voc(
    ground_truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], category_ids: Sequence[int]
) -> list[VOCRow]:
    """A row for each of the classes `category_ids`; arguments are those of `evaluation.evaluate`."""
    objects: dict[tuple[int, int], list[Any]] = defaultdict(list)
    for annotation in ground_truth["annotations"]:
        objects[annotation["category_id"], annotation["image_id"]].append(annotation)
    found: dict[int, list[Any]] = defaultdict(list)
    for detection in detections:
        found[detection["category_id"]].append(detection)
    return [_row(number, objects, found[number]) for number in category_ids]


def columns(
    ground_truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], category_ids: Sequence[int]
) -> dict[str, list[float]]:
    """VOC's per-class table under both protocols: objects, detections, recall at IoU 0.5, AP at 0.5 and the mean AP."""
    rows = evaluate_voc(ground_truth, detections, category_ids)
    table = {"gts": [float(row.gts) for row in rows], "dets": [float(row.dets) for row in rows]}
    table["recall50"] = [float(row.recall[0]) for row in rows]
    for protocol in PROTOCOLS:
        table[f"{protocol}_ap50"] = [float(row.ap[protocol][0]) for row in rows]
        table[f"{protocol}_ap"] = [float(row.ap[protocol].mean()) for row in rows]
    return table


def _row(category_id: int, objects: Mapping[tuple[int, int], list[Any]], detections: Sequence[Any]) -> VOCRow:
    own = {image: some for (category, image), some in objects.items() if category == category_id}
    gts = sum(not _ignored(one) for some in own.values() for one in some)
    ranked = sorted(detections, key=lambda one: -one["score"])
    right, wrong = _judged(ranked, own)
    true, false = right.cumsum(1), wrong.cumsum(1)
    recalls, precisions = true / max(gts, EPS), true / np.maximum(true + false, EPS)
    last = recalls[:, -1] if len(ranked) else np.zeros(len(IOUS))
    known = np.ones(len(IOUS)) if gts else np.full(len(IOUS), np.nan)
    ap = {
        protocol: known * [average(*curve) for curve in zip(recalls, precisions, strict=True)]
        for protocol, average in PROTOCOLS.items()
    }
    return VOCRow(gts, len(ranked), known * last, ap)


def _ignored(annotation: Mapping[str, Any]) -> bool:
    return bool(annotation.get("iscrowd") or annotation.get("difficult") or annotation.get("ignore"))


def _judged(ranked: Sequence[Any], objects: Mapping[int, list[Any]]) -> tuple[FloatArray, FloatArray]:
    """(10, D) which detections, best first, are right and which are wrong at each threshold."""
    right, wrong = np.zeros((2, len(IOUS), len(ranked)))
    boxes = {image: np.array([one["bbox"] for one in some]) for image, some in objects.items()}
    taken = {image: np.zeros((len(IOUS), len(some)), bool) for image, some in objects.items()}
    for place, detection in enumerate(ranked):
        image = detection["image_id"]
        if image not in objects:
            wrong[:, place] = 1
            continue
        ious = _overlaps(np.array(detection["bbox"]), boxes[image])
        nearest = int(ious.argmax())
        for level, threshold in enumerate(IOUS):
            if ious[nearest] < threshold or taken[image][level, nearest]:
                wrong[level, place] = not (ious[nearest] >= threshold and _ignored(objects[image][nearest]))
            elif not _ignored(objects[image][nearest]):
                right[level, place] = taken[image][level, nearest] = 1
    return right, wrong


def _overlaps(box: FloatArray, boxes: FloatArray) -> FloatArray:
    """(K,) IoU of a box (x, y, width, height) with others (K, 4)."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[:2] + box[2:], boxes[:, :2] + boxes[:, 2:])
    shared = (high - low).clip(0).prod(1)
    together: FloatArray = box[2:].prod() + boxes[:, 2:].prod(1) - shared
    return shared / np.maximum(together, EPS)


def _eleven_points(recall: FloatArray, precision: FloatArray) -> float:
    best = [precision[recall >= point / 10 - 1e-12].max(initial=0.0) for point in range(11)]
    return float(np.mean(best))


def _area(recall: FloatArray, precision: FloatArray) -> float:
    recall, precision = np.concatenate([[0.0], recall, [1.0]]), np.concatenate([[0.0], precision, [0.0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall) * envelope[1:]).sum())


PROTOCOLS = {"voc11": _eleven_points, "voc_area": _area}
MEANS = tuple(f"{protocol}_{kind}" for protocol in PROTOCOLS for kind in ("ap50", "ap"))
"""The columns of which the mean over classes is a metric."""
