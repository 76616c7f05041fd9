"""NanoDet-Plus's dynamic soft label assigner: each location's own predictions decide what it stands for.

Source: repository RangiLyu/nanodet. mmdet's assigner of that name is RTMDet's, another algorithm.
"""

from __future__ import annotations

import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor
from torch.nn import functional as F

from trainables.detectors.boxes import of_sample
from trainables.detectors.forward import Forward, Samples, Targets

TOP, IOU_WEIGHT, EPS = 13, 3.0, 1e-7


@torch.no_grad()
def assign(num_classes: int, output: Forward, samples: Samples) -> Targets:
    """Targets of a batch by the forward pass that they are for; `num_pos` is the batch's."""
    boxes = output.boxes
    found = [_of_image(num_classes, output, *one) for one in zip(samples, output.score_logits, boxes, strict=True)]
    labels, wanted = (torch.stack(column) for column in zip(*found, strict=True))
    num_pos = float((labels < num_classes).sum())
    return Targets(labels, torch.ones_like(labels, dtype=boxes.dtype), wanted, num_pos, num_classes)


def _of_image(
    num_classes: int, grid: Forward, sample: DetDataSample, logits: Tensor, boxes: Tensor
) -> tuple[Tensor, Tensor]:
    present = of_sample(sample, boxes)
    known = sample.gt_instances.labels.to(boxes.device)
    index, _ = matched(grid.centers, logits, boxes, present, known)
    labels, wanted = torch.full_like(index, num_classes), torch.zeros_like(boxes)
    positive = index >= 0
    labels[positive], wanted[positive] = known[index[positive]], present[index[positive]]
    return labels, wanted


def matched(
    centers: Tensor,
    logits: Tensor,
    boxes: Tensor,
    present: Tensor,
    known: Tensor,
    top: int = TOP,
    iou_weight: float = IOU_WEIGHT,
) -> tuple[Tensor, Tensor]:
    """(N,) which box each location stands for, -1 where none, and (N,) the IoU of its prediction with it.

    Args:
        centers: (N, 2) in px; logits: (N, C); boxes: (N, 4) as predicted.
        present: (K, 4) boxes; known: (K,) their labels.
        top: IoUs whose sum is the number of a box's locations.
    """
    index = torch.full((len(boxes),), -1, dtype=torch.long, device=boxes.device)
    ious = boxes.new_zeros(len(boxes))
    inside = (centers[:, None] > present[:, :2]) & (centers[:, None] < present[:, 2:])
    valid = inside.all(-1).any(1)
    if not valid.any():
        return index, ious
    overlaps = bbox_overlaps(boxes[valid], present)
    chosen = _cheapest(_costs(logits[valid], overlaps, known, iou_weight), overlaps, top)
    some = chosen.any(1)
    places = valid.nonzero().squeeze(1)[some]
    index[places] = chosen[some].float().argmax(1)
    ious[places] = (chosen * overlaps).sum(1)[some]
    return index, ious


def _costs(logits: Tensor, overlaps: Tensor, known: Tensor, iou_weight: float) -> Tensor:
    """(M, K) of a location that stands for a box: quality focal loss of the class and -log IoU."""
    aim = F.one_hot(known, logits.shape[-1]) * overlaps[..., None]
    given = logits[:, None].expand_as(aim)
    focal = F.binary_cross_entropy_with_logits(given, aim, reduction="none") * (aim - given.sigmoid()).abs().square()
    return focal.sum(-1) - iou_weight * (overlaps + EPS).log()


def _cheapest(costs: Tensor, overlaps: Tensor, top: int) -> Tensor:
    """(M, K) of each box its cheapest locations, as many as the sum of its largest IoUs; a location keeps one box."""
    counts = overlaps.topk(min(top, len(overlaps)), dim=0).values.sum(0).int().clamp(min=1)
    chosen = torch.zeros_like(costs, dtype=torch.bool)
    for box, count in enumerate(counts.tolist()):
        chosen[costs[:, box].topk(count, largest=False).indices, box] = True
    twice = chosen.sum(1) > 1
    chosen[twice] = F.one_hot(costs[twice].argmin(1), costs.shape[1]).bool()
    return chosen
