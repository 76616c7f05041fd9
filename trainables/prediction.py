"""Detections of a detector on a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models import BaseDetector
from mmengine.structures import InstanceData
from torch.utils.data import Dataset

from trainables.datasets.image_table import in_order, stacked


@torch.no_grad()
def predict(
    detector: BaseDetector, dataset: Dataset, category_ids: Sequence[int], batch_size: int, workers: int = 0
) -> list[dict[str, Any]]:
    """COCO results: image_id, category_id, bbox (x, y, width, height in px of the original image), score.

    The detector's mode and the random state are left as they were.

    Args:
        category_ids: the category id of each label.
    """
    loader = in_order(dataset, batch_size, workers, stacked)
    training = detector.training
    detector.eval()
    results = [
        coco_rows(sample.img_id, sample.pred_instances, category_ids)
        for batch in loader
        for sample in detector.test_step(batch)
    ]
    detector.train(training)
    return [row for rows in results for row in rows]


def coco_rows(image_id: int, found: InstanceData, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """What was found in one image, boxes as x1, y1, x2, y2, in the form of `predict`."""
    boxes = found.bboxes.double().cpu()
    boxes[:, 2:] -= boxes[:, :2]
    return [
        {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
        for box, score, label in zip(boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    ]
