"""Collaborative distillation: class and box of the teacher's boxes, weighed against each other location by location.

Source: repository zhjpqq/ILYOLOX, 2022. Where the student is worse in the class than in the box, the class counts more,
and the other way round.
"""

from __future__ import annotations

import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor
from torch.nn import functional as F

from search_spaces.ilyolox import ILYOLOXParams
from trainables.detectors.forward import Batch, CodedForward
from trainables.distillation.divergence import kl_rows
from trainables.distillation.teacher_boxes import of_teacher

FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
ABSENT = -20.0
"""The logit of a class that the teacher has no row for: about what a head with all rows from the start says of it."""


def balance(
    student_logits: Tensor, teacher_logits: Tensor, student_boxes: Tensor, teacher_boxes: Tensor, exponent: float = 1.0
) -> tuple[Tensor, Tensor]:
    """(n,) weights of the class and of the box of each location; they sum to 2.

    Args:
        student_logits, teacher_logits: (n, C); student_boxes, teacher_boxes: (n, 4) in px.
        exponent: of both errors, before their shares are taken.
    """
    of_class = F.binary_cross_entropy_with_logits(student_logits, teacher_logits.sigmoid(), reduction="none").sum(-1)
    of_box = 1 - bbox_overlaps(student_boxes, teacher_boxes, mode="giou", is_aligned=True)
    errors = torch.stack([of_class, of_box]).clamp(min=0) ** exponent
    total = errors.sum(0)
    w_cls = torch.where(total > 0, 2 * errors[0] / total.clamp(min=torch.finfo(total.dtype).tiny), 1.0)
    return w_cls, 2 - w_cls


def class_target(teacher_logits: Tensor, hybrid: str) -> Tensor:
    """(n, C) what the student's classes are drawn to."""
    soft = teacher_logits.sigmoid()
    best, label = soft.max(-1, keepdim=True)
    if hybrid == "hy1":
        return soft.scatter(-1, label, 1.0)
    if hybrid == "hy2":
        return soft + (1 - best)
    if hybrid == "onehot":
        return torch.zeros_like(soft).scatter(-1, label, 1.0)
    return soft


def class_rows(student_logits: Tensor, target: Tensor, teacher_logits: Tensor, params: ILYOLOXParams) -> Tensor:
    """(n,) the class term of each location."""
    if params.cd_loss == "kl":
        return kl_rows(student_logits, teacher_logits, params.T)
    rows = F.binary_cross_entropy_with_logits(student_logits, target, reduction="none")
    if params.cd_loss == "focal":
        away = (student_logits.sigmoid() - target).abs()
        rows = rows * (FOCAL_ALPHA * target + (1 - FOCAL_ALPHA) * (1 - target)) * away**FOCAL_GAMMA
    return rows.sum(-1)


def terms(
    student_logits: Tensor, teacher_logits: Tensor, student_boxes: Tensor, teacher_boxes: Tensor, params: ILYOLOXParams
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(n,) of each location: the class term and the box term, weighed, and their weights w_cls and w_loc.

    Args:
        student_logits, teacher_logits: (n, C); student_boxes, teacher_boxes: (n, 4) in px.
    """
    w_cls = w_loc = student_logits.new_ones(len(student_logits))
    if params.ckd:
        w_cls, w_loc = balance(student_logits, teacher_logits, student_boxes, teacher_boxes, params.ckd_exponent)
        if params.ckd_detach:
            w_cls, w_loc = w_cls.detach(), w_loc.detach()
    if params.hybrid == "hy3":
        w_cls = (1 - teacher_logits.sigmoid().amax(-1)) ** 2
    of_class = class_rows(student_logits, class_target(teacher_logits, params.hybrid), teacher_logits, params)
    overlap = bbox_overlaps(student_boxes, teacher_boxes, is_aligned=True)
    return w_cls * of_class, w_loc * (1 - overlap.square()), w_cls, w_loc


class CKD:
    """The distiller: `loss_cd_soft`, `loss_ld_iou`, `loss_ld_box`, those whose weight is not 0.

    It listens where the student stands for one of the teacher's boxes; `batch` holds them.
    """

    def __init__(self, params: ILYOLOXParams) -> None:
        self.params = params

    def __call__(self, student: CodedForward, teacher: CodedForward, old: Tensor, batch: Batch) -> dict[str, Tensor]:
        params = self.params
        if params.which != "posnoprev":
            return {}
        mask, priors = of_teacher(batch.targets, batch.samples)
        image, place = mask.nonzero(as_tuple=True)
        found = priors[image, place]
        own, taught = student.cls_logits[image, place], teacher.cls_logits[image, found].detach()
        if params.new_classes == "negative":
            taught = torch.full_like(own, ABSENT).index_copy(1, old, taught)
        else:
            own = own[:, old]
        boxes, aims = student.boxes[image, place], teacher.boxes[image, found].detach()
        of_class, of_box, w_cls, w_loc = terms(own, taught, boxes, aims, params)
        number = max(len(place), 1)
        losses = {"n_distilled": mask.sum() / len(mask)}
        if len(place):
            losses |= {"w_cls": w_cls.detach().mean(), "w_loc": w_loc.detach().mean()}
        if params.w_cd:
            losses["loss_cd_soft"] = params.alpha_cls * params.w_cd * of_class.sum() / number
        if params.w_iou:
            losses["loss_ld_iou"] = params.alpha_loc * params.w_iou * of_box.sum() / number
        if params.w_box:
            height, width = batch.samples[0].batch_input_shape
            sides = boxes.new_tensor([width, height, width, height])
            losses["loss_ld_box"] = params.alpha_loc * params.w_box * ((boxes - aims).abs() / sides).sum() / number
        return losses
