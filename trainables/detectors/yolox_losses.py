"""YOLOX's forward pass, flattened, SimOTA, and the losses against ground truth on chosen class channels.

Source: YOLOX, arXiv 2107.08430; assignment and normalisers as in repository zhjpqq/ILYOLOX, which differs from mmdet in
the assigner's class cost: of the square root of class probability times objectness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmdet.models import SingleStageDetector, YOLOXHead
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.detectors.boxes import of_sample
from trainables.detectors.forward import CodedForward, Samples, Targets, flatten_levels

W_OBJ, W_BOX = 1.0, 5.0
Levels = list[Tensor]


@dataclass(frozen=True)
class AssignedTargets(Targets):
    """Targets of SimOTA, of which the detector's own predictions decide.

    Attributes:
        assigned: (B, N) which box of its image a location stands for, from 0; -1 where none.
        ious: (B, N) of the predicted box with it; 0 where none.
        cls_share, box_share: (B, N) or 1: weights of the positive locations' class and box losses, beside `weights`.
        num_trained: of the locations that class and box losses are divided by; `num_pos` divides objectness.
    """

    assigned: Tensor
    ious: Tensor
    num_trained: float
    cls_share: Tensor | float = 1.0
    box_share: Tensor | float = 1.0

    @property
    def positive(self) -> Tensor:
        """(B, N) where a location stands for a box."""
        return self.assigned >= 0


def from_stages(detector: SingleStageDetector, stages: Sequence[Tensor]) -> CodedForward:
    """The detector's raw outputs, in float32, from those of its backbone."""
    head: YOLOXHead = detector.bbox_head
    fpn = list(detector.neck(stages))
    cls_tower = _each(head.multi_level_cls_convs, fpn)
    reg_tower = _each(head.multi_level_reg_convs, fpn)
    cls_scores = _each(head.multi_level_conv_cls, cls_tower)
    codes, objectness = _each(head.multi_level_conv_reg, reg_tower), _each(head.multi_level_conv_obj, reg_tower)
    sizes = [level.shape[-2:] for level in cls_scores]
    priors = head.prior_generator.grid_priors(sizes, device=fpn[0].device, with_stride=True)
    places = torch.cat(priors)
    return CodedForward(
        flatten_levels(cls_scores, head.cls_out_channels).float(),
        flatten_levels(codes, 4).float(),
        places[:, :2],
        places[:, 2],
        tuple(map(len, priors)),
        {"cls_tower": cls_tower, "reg_tower": reg_tower, "fpn": fpn},
        obj_logits=flatten_levels(objectness, 1).squeeze(-1).float(),
    )


def _each(modules: Sequence[nn.Module], levels: Levels) -> Levels:
    return [module(level) for module, level in zip(modules, levels, strict=True)]


@torch.no_grad()
def assign(head: YOLOXHead, output: CodedForward, samples: Samples) -> AssignedTargets:
    """Targets by SimOTA (arXiv 2107.08430, section 2.1)."""
    half = output.strides[:, None] / 2
    priors = torch.cat([output.centers + half, output.strides[:, None].expand(-1, 2)], 1)
    scores, boxes = output.scores.sqrt(), output.boxes
    found = [_of_image(head, priors, *one) for one in zip(samples, scores, boxes, strict=True)]
    assigned, ious, labels, wanted = (torch.stack(column) for column in zip(*found, strict=True))
    num_pos = float((assigned >= 0).sum())
    weights = torch.ones_like(ious)
    return AssignedTargets(labels, weights, wanted, num_pos, head.num_classes, assigned, ious, num_pos)


def _of_image(
    head: YOLOXHead, priors: Tensor, sample: DetDataSample, scores: Tensor, boxes: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    present = of_sample(sample, boxes)
    known = InstanceData(bboxes=present, labels=sample.gt_instances.labels.to(boxes.device))
    found = head.assigner.assign(InstanceData(bboxes=boxes, scores=scores, priors=priors), known)
    assigned = found.gt_inds - 1
    positive = assigned >= 0
    labels = torch.full_like(assigned, head.num_classes)
    labels[positive] = known.labels[assigned[positive]]
    wanted, ious = torch.zeros_like(boxes), boxes.new_zeros(len(boxes))
    wanted[positive] = present[assigned[positive]]
    ious[positive] = found.max_overlaps[positive]
    return assigned, ious, labels, wanted


def losses(
    output: CodedForward, targets: AssignedTargets, trained: Tensor, negative_weight: float = 1.0
) -> dict[str, Tensor]:
    """`loss_cls`, `loss_obj`, `loss_bbox` of a batch and its positives per image.

    Args:
        negative_weight: of objectness where there is no object.
        trained: (B, C), or (C,) for all alike: whether an image trains a class channel. Objectness and boxes train in
            every case.
    """
    positive = targets.positive
    image, place = positive.nonzero(as_tuple=True)
    own = output.cls_logits[image, place]
    aim = F.one_hot(targets.labels[image, place], targets.background + 1)[:, :-1] * targets.ious[image, place, None]
    rows = F.binary_cross_entropy_with_logits(own, aim, reduction="none")
    of_class = (rows * trained.expand(len(positive), -1)[image]).sum(-1)
    objectness = F.binary_cross_entropy_with_logits(output.obj_logits, positive.float(), reduction="none")
    overlap = bbox_overlaps(output.boxes[image, place], targets.boxes[image, place], is_aligned=True)
    shares = [(targets.weights * share)[image, place] for share in (targets.cls_share, targets.box_share)]
    num_trained, num_pos = max(targets.num_trained, 1.0), max(targets.num_pos, 1.0)
    nothing = output.cls_logits.sum() * 0 + output.box_logits.sum() * 0  # for every parameter has a gradient
    return {
        "loss_cls": (of_class * shares[0]).sum() / num_trained + nothing,
        "loss_obj": W_OBJ * (objectness * torch.where(positive, 1.0, negative_weight)).sum() / num_pos,
        "loss_bbox": W_BOX * ((1 - overlap.square()) * shares[1]).sum() / num_trained + nothing,
        "n_pos": positive.sum() / len(positive),
    }
