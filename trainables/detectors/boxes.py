"""What several parts ask of boxes (x1, y1, x2, y2 in px)."""

from __future__ import annotations

import torch
from mmdet.structures import DetDataSample
from torch import Tensor


def of_sample(sample: DetDataSample, like: Tensor) -> Tensor:
    """(K, 4) the boxes that a sample carries, in mmdet's wrapper or not, of the type and on the device of `like`."""
    boxes = sample.gt_instances.bboxes
    return getattr(boxes, "tensor", boxes).to(like)


def centers(boxes: Tensor) -> Tensor:
    """(..., 2) x, y of boxes (..., 4)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def relative_distances(boxes: Tensor, others: Tensor) -> Tensor:
    """(N, K) DIoU's second term, of boxes (N, 4) and others (K, 4): squared distance of the centres over that of the
    diagonal of the box that encloses both.
    """
    low = torch.minimum(boxes[:, None, :2], others[:, :2])
    high = torch.maximum(boxes[:, None, 2:], others[:, 2:])
    apart = (centers(boxes)[:, None] - centers(others)).square().sum(-1)
    return apart / (high - low).square().sum(-1).clamp(min=torch.finfo(torch.float32).eps)
