"""COCO's box AP, against pycocotools: all classes and images, and subsets of either."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tests.parity.comparison import EXACT, FIGURES, Comparison, Oracle
from trainables.evaluation import evaluate

COLUMNS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar100")


def check(oracle: Oracle) -> Comparison:
    """The comparison of the summary figures, of each class's figures and of the subset runs."""
    comparison = Comparison(oracle)
    ground_truth, detections = _json(oracle["gt_json"]), _json(oracle["dt_json"])
    in_json_order = oracle["category_ids_json_order"].tolist()
    rows = np.argsort(in_json_order)  # the oracle's rows follow the sorted ids, ours the order we ask for
    whole = evaluate(ground_truth, detections, in_json_order)
    comparison.compare("exp_category_ids", np.array(in_json_order)[rows], EXACT)
    comparison.compare("exp_stats", whole.stats, FIGURES)
    comparison.compare("exp_per_class", np.stack([whole.per_class[kind][rows] for kind in COLUMNS], axis=1), FIGURES)
    comparison.compare("exp_per_class_ap_by_iou", whole.ap_by_iou[rows], FIGURES)

    everything = {"category_ids": in_json_order}
    categories = {"category_ids": oracle["subset_category_ids"].tolist()} if "subset_category_ids" in oracle else {}
    for name, chosen in {
        "exp_stats_category_subset": categories,
        "exp_stats_image_subset": {**everything, **_images(oracle, "subset_image_ids")},
        "exp_stats_category_subset_seen_images": {**categories, **_images(oracle, "seen_image_ids")},
    }.items():
        if name in oracle:
            comparison.compare(name, evaluate(ground_truth, detections, **chosen).stats, FIGURES)
    return comparison


def _json(text: np.ndarray[Any, Any]) -> Any:
    return json.loads(text.tobytes())


def _images(oracle: Oracle, name: str) -> dict[str, list[int]]:
    return {"image_ids": oracle[name].tolist()} if name in oracle else {}
