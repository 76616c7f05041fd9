"""Cluster-DIoU-NMS with score voting: the boxes of a cluster decide together where its best one is.

Source: Zheng et al., CVPR 2022, arXiv 2102.12252; repository HikariTJU/LD, `voting_cluster_diounms`. Departures:
classes are kept apart by the largest coordinate, where the original's 4000 px fails on larger images; the boxes that
vote are limited in number.
"""

from __future__ import annotations

from typing import Any

import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from trainables.detectors.boxes import relative_distances

TYPE = "voting_cluster_diounms"
MOST = 5000  # boxes that vote: the matrices are quadratic in their number
ROUNDS = 999


def voting_nms(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    iou_threshold: float = 0.6,
    beta: float = 0.8,
    gate: float = 0.7,
    sigma: float = 0.025,
) -> tuple[Tensor, Tensor]:
    """The voted boxes (K, 4) that stay, best first, and which of the given ones they were (K,).

    Args:
        boxes: (M, 4) x1, y1, x2, y2 in px.
        scores: (M,).
        labels: (M,) boxes of different labels neither suppress each other nor vote together.
        iou_threshold: a box whose DIoU with a better one that stays is above it goes.
        beta: exponent of the distance of centres in DIoU.
        gate: smallest DIoU with which a box votes.
        sigma: how quickly a vote fades with 1 - DIoU.
    """
    order = scores.argsort(descending=True, stable=True)[:MOST]
    boxes, scores = boxes[order], scores[order]
    if not len(boxes):
        return boxes, order
    apart = labels[order].to(boxes)[:, None] * (boxes.max() + 1)
    moved = boxes + apart
    nearness = bbox_overlaps(moved, moved) - relative_distances(moved, moved) ** beta
    above = nearness.triu(1)
    rest = above
    for _ in range(ROUNDS):
        stays = rest.amax(0) <= iou_threshold
        following = above * stays[:, None]
        if torch.equal(following, rest):
            break
        rest = following
    kept = rest.amax(0) <= iou_threshold
    votes = nearness.triu() * stays[:, None]
    weights = scores * torch.exp(-((1 - votes * (votes > gate)) ** 2) / sigma)
    voted = weights @ boxes / weights.sum(1, keepdim=True)
    return voted[kept], order[kept]


class VotingPostProcess:
    """Before a dense head of mmdet: understands `nms: {type: voting_cluster_diounms, iou_threshold: 0.6}`."""

    def _bbox_post_process(
        self,
        results: InstanceData,
        cfg: ConfigDict,
        rescale: bool = False,
        with_nms: bool = True,
        img_meta: dict[str, Any] | None = None,
    ) -> InstanceData:
        parent: Any = super()
        if not with_nms or cfg.nms.type != TYPE:
            return parent._bbox_post_process(results, cfg, rescale, with_nms, img_meta)
        results = parent._bbox_post_process(results, cfg, rescale, False, img_meta)
        constants = {name: value for name, value in cfg.nms.items() if name != "type"}
        boxes, kept = voting_nms(results.bboxes, results.scores, results.labels, **constants)
        found = results[kept]
        found.bboxes = boxes
        return found[: cfg.max_per_img]
