"""Elastic response distillation: distil where the teacher responds unusually strongly.

Source: Feng, Wang, Yuan, CVPR 2022, arXiv 2204.02136; repository Hi-FT/ERD, whose released code is the reference for
every number here (presets `erd_2022`, `erd_2023`). Departures: an empty selection gives zero, any batch works, old
classes are addressed by index. Shape suffixes as in `trainables.detectors.forward`; K kept boxes of one image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from mmcv.ops import batched_nms
from torch import Tensor
from torch.nn import functional as F

from search_spaces.erd import ERDParams
from trainables.detectors.forward import Forward, Samples, boxes_around, expected_distances

BOX_WEIGHT = 0.25


@dataclass(frozen=True)
class Selection:
    """What is distilled: a mask (B, N) for class logits; for boxes, pairs of index vectors (image, location)."""

    cls_mask: Tensor
    box_image: Tensor
    box_place: Tensor


def elastic_mask(responses_BN: Tensor, alpha: float, level_sizes: tuple[int, ...] | None = None) -> Tensor:
    """Where a response exceeds mean + alpha * std (unbiased) of its image, or of its image and level.

    One location, or responses all alike, select nothing.
    """
    if level_sizes is not None:
        parts = responses_BN.split(level_sizes, dim=1)
        return torch.cat([elastic_mask(part, alpha) for part in parts], dim=1)
    above = responses_BN > elastic_threshold(responses_BN, alpha)
    return above & (responses_BN > responses_BN.amin(1, keepdim=True))  # the mean of equal numbers may round below them


def elastic_threshold(responses_BN: Tensor, alpha: float) -> Tensor:
    """(B, 1) mean + alpha * std (unbiased) of each image's responses; nan where there is only one."""
    means = responses_BN.mean(1, keepdim=True)
    if responses_BN.shape[1] < 2:
        return torch.full_like(means, torch.nan)
    return means + alpha * responses_BN.std(1, keepdim=True)


def box_response(box_logits: Tensor, kind: str) -> Tensor:
    """(B, N) how strongly a location answers about its box."""
    edges = box_logits.unflatten(-1, (4, -1))
    if kind == "max_logit":
        return box_logits.amax(-1)
    if kind == "max_prob":
        return edges.softmax(-1).amax((-2, -1))
    return edges.amax(-1).mean(-1)


def select(teacher: Forward, params: ERDParams) -> Selection:
    """The locations to distil; boxes thinned by class-aware NMS of the teacher's own boxes, image by image."""
    cls_mask, box_mask = candidates(teacher, params)
    image, place = box_mask.nonzero(as_tuple=True)
    scores, labels = teacher.cls_logits[image, place].sigmoid().max(-1)
    boxes = teacher_boxes(teacher, image, place, params.decode_with_stride)
    kept = _nms_by_image(image, boxes, scores, labels, params.nms_iou)
    return Selection(cls_mask, image[kept], place[kept])


def candidates(teacher: Forward, params: ERDParams) -> tuple[Tensor, Tensor]:
    """Masks (B, N) of the locations that the rule `params.select` picks for classes and, before NMS, for boxes."""
    scores_BN = teacher.cls_logits.sigmoid().amax(-1)
    if params.select == "all":
        return (everything := torch.ones_like(scores_BN, dtype=torch.bool)), everything
    if params.select == "fixed_thr":
        return scores_BN > params.thr, scores_BN > params.thr
    responses_BN = box_response(teacher.box_logits, params.box_response)
    if params.select == "topk":
        return _top(scores_BN, params.topk), _top(responses_BN, params.topk)
    sizes = teacher.level_sizes if params.stat_scope == "per_level" else None
    return elastic_mask(scores_BN, params.alpha_cls, sizes), elastic_mask(responses_BN, params.alpha_box, sizes)


def _top(responses_BN: Tensor, count: int) -> Tensor:
    top = responses_BN.topk(min(count, responses_BN.shape[1]), dim=1).indices
    return torch.zeros_like(responses_BN, dtype=torch.bool).scatter(1, top, True)


def teacher_boxes(teacher: Forward, image: Tensor, place: Tensor, with_stride: bool) -> Tensor:
    """(K, 4) the teacher's boxes. The released code (`with_stride=False`) has centres in px, sides in strides."""
    distances = expected_distances(teacher.box_logits[image, place])
    return boxes_around(teacher.centers[place], distances * teacher.strides[place, None] if with_stride else distances)


def _nms_by_image(image: Tensor, boxes: Tensor, scores: Tensor, labels: Tensor, iou: float) -> Tensor:
    kept = [image[:0]]
    for number in image.unique().tolist():
        rows = (image == number).nonzero().squeeze(1)
        _, keep = batched_nms(boxes[rows], scores[rows], labels[rows], {"type": "nms", "iou_threshold": iou})
        kept.append(rows[keep])
    return torch.cat(kept)


def kl_rows(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL divergence (...) of the softened last dimension: T^2 times the mean over its M entries, as in LD and ERD."""
    target = (teacher.detach() / temperature).softmax(-1)
    logs = (student / temperature).log_softmax(-1)
    return temperature**2 * F.kl_div(logs, target, reduction="none").mean(-1)


def class_terms(student_BNC: Tensor, teacher_BNC: Tensor, params: ERDParams) -> Tensor:
    """(B, N) distance of the student's old-class logits from the teacher's; 0 where they agree."""
    if params.cls_loss == "kl":
        return kl_rows(student_BNC, teacher_BNC, params.T)
    teacher_BNC = teacher_BNC.detach()
    target = teacher_BNC.sigmoid()
    if params.cls_loss == "l2_sigmoid":
        return (student_BNC.sigmoid() - target).square().mean(-1)
    if params.cls_loss == "bce":
        entropy = F.binary_cross_entropy_with_logits(teacher_BNC, target, reduction="none")
        return (F.binary_cross_entropy_with_logits(student_BNC, target, reduction="none") - entropy).mean(-1)
    return (student_BNC - teacher_BNC).square().mean(-1)


def per_image_class(student_BNC: Tensor, teacher_BNC: Tensor, mask: Tensor, params: ERDParams) -> tuple[Tensor, Tensor]:
    """(B,) sums of the class terms over each image's selection, and its sizes."""
    terms = class_terms(student_BNC, teacher_BNC, params)
    return (terms * mask).sum(1), mask.sum(1).to(terms.dtype)


def per_image_box(
    student: Forward, teacher: Forward, old: Tensor, chosen: Selection, params: ERDParams
) -> tuple[Tensor, Tensor, Tensor]:
    """(B,) sums of the weighted box terms over each image's kept boxes, their number, the sum of their weights."""
    image, place = chosen.box_image, chosen.box_place
    terms = kl_rows(
        student.box_logits[image, place].unflatten(-1, (4, -1)),
        teacher.box_logits[image, place].unflatten(-1, (4, -1)),
        params.T,
    ).mean(-1)
    weights = torch.ones_like(terms)
    if params.box_weight == "student":
        weights = student.cls_logits[image, place][:, old].detach().sigmoid().amax(-1)
    elif params.box_weight == "teacher":
        weights = teacher.cls_logits[image, place].detach().sigmoid().amax(-1)
    zeros = terms.new_zeros(len(student.box_logits))
    sums = zeros.index_add(0, image, BOX_WEIGHT * weights * terms)
    return sums, zeros.index_add(0, image, torch.ones_like(terms)), zeros.index_add(0, image, weights)


def reduced(sums: Tensor, sizes: Tensor, norms: Tensor, reduction: str) -> Tensor:
    """One loss from per-image sums (B,).

    Args:
        sizes: (B,) number of locations behind each sum.
        norms: (B,) what each image's sum is divided by; the image counts as 0 where nothing was selected.
        reduction: `mean_images`, `sum_images`, or `concat_mean`: one mean over the selection of the whole batch.
    """
    if reduction == "concat_mean":
        return sums.sum() / norms.sum().where(sizes.sum() > 0, torch.ones_like(norms.sum()))
    images = sums / norms.where(sizes > 0, torch.ones_like(norms))
    return images.sum() if reduction == "sum_images" else images.mean()


class ERD:
    """The distiller: `loss_dist_cls`, `loss_dist_bbox`, and how much was selected, mean per image."""

    def __init__(self, params: ERDParams) -> None:
        self.params = params

    def __call__(self, student: Forward, teacher: Forward, old: Tensor, samples: Samples) -> dict[str, Tensor]:
        params, images = self.params, len(teacher.cls_logits)
        chosen = select(teacher, params)
        sums, sizes = per_image_class(student.cls_logits[..., old], teacher.cls_logits, chosen.cls_mask, params)
        loss_cls = reduced(sums, sizes, sizes, params.cls_reduction)
        sums, sizes, weights = per_image_box(student, teacher, old, chosen, params)
        plain = sizes if params.box_reduction == "concat_mean" else torch.ones_like(sizes)
        norms = {"sum": plain, "count": sizes, "weight_sum": weights}[params.box_norm]
        loss_box = reduced(sums, sizes, norms, params.box_reduction)
        return {
            "loss_dist_cls": params.lambda_cls * loss_cls,
            "loss_dist_bbox": params.lambda_box * loss_box,
            "n_sel_cls": chosen.cls_mask.sum() / images,
            "n_sel_box": torch.as_tensor(len(chosen.box_image) / images),
        }
