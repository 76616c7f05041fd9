"""Where LD listens: the valuable localisation region, and the regions of feature imitation.

Source: Zheng et al., CVPR 2022, arXiv 2102.12252, section 3.4; repository HikariTJU/LD, whose released code is the
reference. Anchors (N, 4) and boxes (K, 4) are x1, y1, x2, y2 in px; an image without boxes has empty regions.
"""

from __future__ import annotations

import torch
from mmcv.ops import nms
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor

from trainables.detectors.boxes import centers, relative_distances
from trainables.detectors.forward import Forward

NEAREST = 9  # anchors a level from which ATSS and the valuable region take their threshold
GI_NMS, GI_TOP = 0.3, 10


def valuable(anchors: Tensor, level_sizes: tuple[int, ...], boxes: Tensor, gamma: float, metric: str) -> Tensor:
    """(N,) how valuable a location is: the largest IoU with a box whose region holds it, 0 where none does.

    A box's region is where `gamma * threshold <= D < threshold`, with ATSS's threshold: mean + std of the IoUs of the 9
    nearest anchors of each level.

    Args:
        metric: D: `released`, inter / area of the anchor - (distance of centres / diagonal of both)^2, or `diou`.
    """
    if not len(boxes):
        return anchors.new_zeros(len(anchors))
    ious = bbox_overlaps(anchors, boxes)
    distances = (centers(anchors)[:, None] - centers(boxes)).square().sum(-1).sqrt()
    threshold = _atss_threshold(ious, distances, level_sizes)
    inside = nearness(anchors, boxes, metric)
    held = (inside >= gamma * threshold) & (inside < threshold)
    return torch.where(held, ious, torch.zeros_like(ious)).amax(1)


def _atss_threshold(ious: Tensor, distances: Tensor, level_sizes: tuple[int, ...]) -> Tensor:
    """(K,) mean + std of the IoUs of each box's nearest anchors."""
    candidates = [
        of_level.gather(0, away.topk(min(NEAREST, len(away)), dim=0, largest=False).indices)
        for of_level, away in zip(ious.split(level_sizes), distances.split(level_sizes), strict=True)
    ]
    found = torch.cat(candidates)
    return found.mean(0) + found.std(0)


def nearness(anchors: Tensor, boxes: Tensor, metric: str) -> Tensor:
    """(N, K) overlap less the squared distance of the centres, in diagonals of the enclosing box.

    Args:
        metric: `released`: overlap is the share of the anchor, which the released code calls DIoU; `diou`: IoU.
    """
    overlap = bbox_overlaps(anchors, boxes, mode="iof" if metric == "released" else "iou")
    return overlap - relative_distances(anchors, boxes)


def inside_boxes(anchors: Tensor, boxes: Tensor) -> Tensor:
    """(N,) whether a location lies strictly inside a box: the region `fitnet`."""
    places = centers(anchors)[:, None]
    return ((places > boxes[:, :2]) & (places < boxes[:, 2:])).all(-1).any(1)


def finegrained(anchors: Tensor, boxes: Tensor) -> Tensor:
    """(N,) whether an anchor's IoU with a box is above half of the largest that any anchor has with it."""
    if not len(boxes):
        return anchors.new_zeros(len(anchors), dtype=torch.bool)
    ious = bbox_overlaps(anchors, boxes)
    return (ious > 0.5 * ious.amax(0)).any(1)


def general_instances(student: Forward, teacher: Forward, old: Tensor, scope: str) -> Tensor:
    """(B, N) where student and teacher differ most about a class: the region `gibox` (arXiv 2103.02340).

    In each level the ten locations with the largest difference of a class probability, after NMS of the boxes of
    whichever of the two is surer of that class.

    Args:
        scope: `image`: ten in each image; `batch`: ten in the whole batch, as released.
    """
    own, taught = student.cls_logits[..., old].detach().sigmoid(), teacher.cls_logits.detach().sigmoid()
    difference, label = (taught - own).abs().max(-1)
    surer = taught.gather(-1, label[..., None]) >= own.gather(-1, label[..., None])
    boxes = torch.where(surer, teacher.boxes, student.boxes).detach()
    images = [slice(None)] if scope == "batch" else [slice(image, image + 1) for image in range(len(boxes))]
    mask = torch.zeros_like(difference, dtype=torch.bool)
    begin = 0
    for size in student.level_sizes:
        level = slice(begin, begin + size)
        for image in images:
            places = torch.arange(mask.numel(), device=mask.device).view_as(mask)[image, level].flatten()
            _, kept = nms(boxes[image, level].reshape(-1, 4), difference[image, level].reshape(-1), GI_NMS)
            mask.view(-1)[places[kept[:GI_TOP]]] = True
        begin += size
    return mask
