"""VOC's AP against mmdet's, which is VOCMetric's, and against numbers by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from mmdet.evaluation.functional import eval_map

from trainables.voc_evaluation import IOUS, MEANS, columns, evaluate_voc

CLASSES = (3, 7, 9)


def random_set(seed: int, images: int = 20) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Objects, some of them ignored, and detections near them or anywhere."""
    drawn = np.random.default_rng(seed)
    annotations, detections = [], []
    for image in range(images):
        for _ in range(int(drawn.integers(0, 5))):
            box = [*drawn.uniform(0, 80, 2), *drawn.uniform(8, 40, 2)]
            category = int(drawn.choice(CLASSES))
            annotations.append(
                {"image_id": image, "category_id": category, "bbox": box, "iscrowd": int(drawn.random() < 0.15)}
            )
            for _ in range(int(drawn.integers(0, 4))):
                near = [float(value + drawn.normal(0, 2)) for value in box]
                detections.append(
                    {"image_id": image, "category_id": category, "bbox": near, "score": float(drawn.random())}
                )
        stray = [*drawn.uniform(0, 80, 2).tolist(), 20.0, 20.0]
        detections.append({"image_id": image, "category_id": 3, "bbox": stray, "score": float(drawn.random())})
    for number in CLASSES:  # no recall is to be a tenth but 1: mmdet's float32 falls below some of them
        counted = [one for one in annotations if one["category_id"] == number and not one["iscrowd"]]
        while math.gcd(len(counted), 10) > 1:
            annotations.remove(counted.pop())
    return {"images": [{"id": image} for image in range(images)], "annotations": annotations}, detections


def corners(boxes: list[list[float]]) -> Any:
    found = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], 1)


def mmdets(truth: dict[str, Any], detections: list[dict[str, Any]], iou: float, protocol: str) -> list[dict[str, Any]]:
    results, annotations = [], []
    for image in truth["images"]:
        own = [one for one in detections if one["image_id"] == image["id"]]
        of_class = [[one for one in own if one["category_id"] == number] for number in CLASSES]
        results.append(
            [
                np.concatenate(
                    [corners([one["bbox"] for one in some]), np.array([[one["score"]] for one in some]).reshape(-1, 1)],
                    1,
                )
                for some in of_class
            ]
        )
        objects = [one for one in truth["annotations"] if one["image_id"] == image["id"]]
        parts = {crowd: [one for one in objects if one["iscrowd"] == crowd] for crowd in (0, 1)}
        annotations.append(
            {
                "bboxes": corners([one["bbox"] for one in parts[0]]),
                "labels": np.array([CLASSES.index(one["category_id"]) for one in parts[0]], dtype=int),
                "bboxes_ignore": corners([one["bbox"] for one in parts[1]]),
                "labels_ignore": np.array([CLASSES.index(one["category_id"]) for one in parts[1]], dtype=int),
            }
        )
    mode = "11points" if protocol == "voc11" else "area"
    found: list[dict[str, Any]] = eval_map(results, annotations, iou_thr=iou, eval_mode=mode, logger="silent", nproc=1)[
        1
    ]
    return found


@pytest.mark.parametrize("protocol", ["voc11", "voc_area"])
@pytest.mark.parametrize("seed", range(3))
def test_every_class_at_every_threshold_is_mmdets(protocol: Any, seed: int) -> None:
    truth, detections = random_set(seed)
    found = evaluate_voc(truth, detections, CLASSES)
    for level, iou in enumerate(IOUS):
        for row, theirs in zip(found, mmdets(truth, detections, iou, protocol), strict=True):
            assert (row.gts, row.dets) == (theirs["num_gts"], theirs["num_dets"])
            assert row.ap[protocol][level] == pytest.approx(float(theirs["ap"]), abs=1e-6)
            assert row.recall[level] == pytest.approx(float(np.array(theirs["recall"])[-1]), abs=1e-6)


BOX = [10.0, 10.0, 20.0, 20.0]
TRUTH = {"images": [{"id": 1}], "annotations": [{"image_id": 1, "category_id": 3, "bbox": BOX}]}


def detection(score: float, **changes: Any) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 3, "bbox": BOX, "score": score} | changes


def test_the_second_detection_of_an_object_is_wrong() -> None:
    (row,) = evaluate_voc(TRUTH, [detection(0.9), detection(0.8)], [3])
    assert (row.gts, row.dets) == (1, 2)
    assert all((ap == 1).all() for ap in row.ap.values())
    (row,) = evaluate_voc(TRUTH, [detection(0.9, bbox=[50.0, 50.0, 5.0, 5.0]), detection(0.8)], [3])
    assert all((ap == 0.5).all() for ap in row.ap.values())


def test_the_protocols_differ_and_are_named() -> None:
    truth = {
        "images": [{"id": 1}, {"id": 2}],
        "annotations": [*TRUTH["annotations"], {**TRUTH["annotations"][0], "image_id": 2}],
    }
    table = columns(truth, [detection(0.9)], [3])
    assert (table["voc11_ap"], table["voc_area_ap"]) == ([pytest.approx(6 / 11)], [0.5])


def test_a_class_without_objects_counts_for_nothing() -> None:
    table = columns(TRUTH, [detection(0.9), detection(0.9, category_id=7)], [3, 7])
    for name in MEANS:
        assert (table[name][0], math.isnan(table[name][1])) == (1.0, True)
    assert math.isnan(columns({"images": [], "annotations": []}, [], [3])["recall50"][0])
