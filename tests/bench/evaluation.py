"""COCO's box AP at the size of COCO val2017: our `evaluate` against pycocotools on the same records in memory."""

from __future__ import annotations

import argparse
import contextlib
import copy
import gc
import io
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from trainables.evaluation import Evaluation, evaluate
from trainables.metrics import FloatArray

Truth = dict[str, Any]
Found = list[dict[str, Any]]
Way = Callable[[Truth, Found, list[int]], Evaluation]
Ids = npt.NDArray[np.int64]
Columns = dict[str, npt.NDArray[Any]]

BOXES_PER_IMAGE = 7


def run(options: list[str]) -> dict[str, float]:
    """`ratio`: pycocotools' time over ours, medians; `max_difference`: over every figure, of all and of each class."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench evaluation", description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--detections", type=int, default=100, help="of each image")
    parser.add_argument("--turns", type=int, default=3)
    chosen = parser.parse_args(options)
    truth, found = coco_like(chosen.images, chosen.classes, chosen.detections)
    print(
        f"{chosen.images} images, {chosen.classes} classes, {len(truth['annotations'])} boxes, {len(found)} detections"
    )
    ways: dict[str, Way] = {"pycocotools": pycocotools_evaluate, "palimpsest": evaluate}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    results = {}
    for turn, name in itertools.product(range(chosen.turns), ways):
        results[name], taken = _timed(ways[name], truth, found)
        seconds[name].append(taken)
        print(f"turn {turn + 1}: {name:12}{taken:9.3f} s", flush=True)
    theirs, ours = (statistics.median(seconds[name]) for name in ways)
    print(f"medians: {theirs:.3f} s / {ours:.3f} s = {theirs / ours:.2f}")
    return {"ratio": theirs / ours, "max_difference": max_difference(*results.values())}


def _timed(way: Way, truth: Truth, found: Found) -> tuple[Evaluation, float]:
    truth, found = copy.deepcopy((truth, found))  # pycocotools writes into what it is given
    category_ids = [category["id"] for category in truth["categories"]]
    gc.collect()  # what the turn before left behind is not this one's cost
    start = time.perf_counter()
    return way(truth, found, category_ids), time.perf_counter() - start


def pycocotools_evaluate(
    truth: Truth, found: Found, category_ids: Sequence[int], image_ids: Sequence[int] | None = None
) -> Evaluation:
    """What pycocotools says, which writes its marks into `truth` and `found`; arguments as those of `evaluate`."""
    with contextlib.redirect_stdout(io.StringIO()):
        expected, results = COCO(), COCO()
        expected.dataset = truth
        results.dataset = {**truth, "annotations": []}
        expected.createIndex()
        results.createIndex()
        if found:
            results = expected.loadRes(found)
        evaluator = COCOeval(expected, results, "bbox")
        evaluator.params.catIds = list(category_ids)
        evaluator.params.imgIds = list(image_ids or evaluator.params.imgIds)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    columns = [sorted(category_ids).index(category_id) for category_id in category_ids]
    precision, recall = evaluator.eval["precision"][:, :, columns], evaluator.eval["recall"][:, columns]
    figures = {
        "ap": precision[:, :, :, 0, 2],
        "ap50": precision[0, :, :, 0, 2],
        "ap75": precision[5, :, :, 0, 2],
        "ap_small": precision[:, :, :, 1, 2],
        "ap_medium": precision[:, :, :, 2, 2],
        "ap_large": precision[:, :, :, 3, 2],
        "ar1": recall[:, :, 0, 0],
        "ar10": recall[:, :, 0, 1],
        "ar100": recall[:, :, 0, 2],
        "ar_small": recall[:, :, 1, 2],
        "ar_medium": recall[:, :, 2, 2],
        "ar_large": recall[:, :, 3, 2],
    }
    return Evaluation(
        stats=evaluator.stats,
        per_class={kind: _of_each_class(figure) for kind, figure in figures.items()},
        ap_by_iou=np.stack([_of_each_class(at_iou) for at_iou in precision[:, :, :, 0, 2]], axis=1),
    )


def _of_each_class(figure: FloatArray) -> FloatArray:
    classes = [figure[..., c][figure[..., c] > -1] for c in range(figure.shape[-1])]
    return np.array([defined.mean() if defined.size else np.nan for defined in classes])


def max_difference(one: Evaluation, other: Evaluation) -> float:
    """The largest difference of any figure, in all or by class; infinite where only one of them has a figure."""
    assert list(one.per_class) == list(other.per_class)
    pairs = [(one.stats, other.stats), (one.ap_by_iou, other.ap_by_iou)]
    pairs += zip(one.per_class.values(), other.per_class.values(), strict=True)
    return max(_difference(*pair) for pair in pairs)


def _difference(one: FloatArray, other: FloatArray) -> float:
    if one.shape != other.shape or (np.isnan(one) != np.isnan(other)).any():
        return float("inf")
    return float(np.nanmax(np.abs(one - other), initial=0))


def coco_like(num_images: int, num_classes: int, num_found: int, seed: int = 0) -> tuple[Truth, Found]:
    """A ground truth and detections with COCO's habits: common and rare classes, boxes of all sizes, a few crowds.

    Args:
        num_images: of 640x480 px, with 7 boxes each on average; some have none.
        num_classes: ids are neither sorted nor contiguous.
        num_found: detections of each image, most of them near a box; scores have three decimals, so that many tie.
    """
    rng = np.random.default_rng(seed)
    image_ids = rng.choice(10 * num_images, num_images, replace=False)
    category_ids = rng.choice(2 * num_classes, num_classes, replace=False)
    annotations = _annotations(rng, image_ids, category_ids)
    truth = {
        "images": [{"id": image_id, "width": 640, "height": 480} for image_id in image_ids.tolist()],
        "categories": [{"id": category_id, "name": str(category_id)} for category_id in category_ids.tolist()],
        "annotations": _records(annotations),
    }
    return truth, _records(_detections(rng, annotations, np.repeat(image_ids, num_found), category_ids))


def _annotations(rng: np.random.Generator, image_ids: Ids, category_ids: Ids) -> Columns:
    """The columns of the ground truth, sorted by image."""
    num = BOXES_PER_IMAGE * len(image_ids)
    boxes = _boxes(rng, num)
    return {
        "id": np.arange(1, num + 1),
        "image_id": np.sort(rng.choice(image_ids, num)),
        "category_id": _classes(rng, category_ids, num),
        "bbox": boxes,
        "area": boxes[:, 2] * boxes[:, 3] * rng.uniform(0.5, 1, num),  # of a mask within the box
        "iscrowd": (rng.random(num) < 0.012).astype(int),
    }


def _detections(rng: np.random.Generator, annotations: Columns, images: Ids, category_ids: Ids) -> Columns:
    """The columns of one detection for each of `images`: three of five are moved boxes, surer where moved less."""
    num = len(images)
    first, past = (np.searchsorted(annotations["image_id"], images, side) for side in ("left", "right"))
    near = (rng.random(num) < 0.6) & (first < past)
    box = np.where(near, rng.integers(first, np.maximum(past, first + 1)), 0)
    spread = rng.uniform(0, 0.3, num)
    moved = annotations["bbox"][box] * rng.normal(1, spread[:, None], (num, 4)).clip(0.3, 3)
    right_class = near & (rng.random(num) < 0.8)
    return {
        "image_id": images,
        "category_id": np.where(right_class, annotations["category_id"][box], _classes(rng, category_ids, num)),
        "bbox": np.where(near[:, None], moved, _boxes(rng, num)),
        "score": (np.where(near, 1 - 3 * spread, 0.3) * rng.random(num)).round(3),
    }


def _classes(rng: np.random.Generator, category_ids: Ids, num: int) -> Ids:
    """(num,) category ids, the first a third of them and each next one rarer."""
    frequency = np.arange(1, len(category_ids) + 1) ** -1.3
    return rng.choice(category_ids, num, p=frequency / frequency.sum())


def _boxes(rng: np.random.Generator, num: int) -> FloatArray:
    side, ratio = np.exp(rng.uniform(np.log(8), np.log(400), num)), np.exp(rng.uniform(-0.6, 0.6, num))
    return np.stack([rng.uniform(0, 400, num), rng.uniform(0, 300, num), side * ratio, side / ratio], axis=1)


def _records(columns: Columns) -> list[dict[str, Any]]:
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]
