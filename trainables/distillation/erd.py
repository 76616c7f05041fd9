"""Elastic response distillation: distil where the teacher responds unusually strongly.

Source: Feng, Wang, Yuan, CVPR 2022, arXiv 2204.02136; repository Hi-FT/ERD, whose released code is the reference for
every number here (presets `erd_2022`, `erd_2023`). Departures: an empty selection gives zero, any batch works, old
classes are addressed by index. Shape suffixes as in `trainables.detectors.forward`; K kept boxes of one image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from mmcv.ops import batched_nms
from torch import Tensor
from torch.nn import functional as F

from search_spaces.erd import ERDParams
from trainables.detectors.forward import Batch, Forward, Grid, boxes_around, expected_distances
from trainables.distillation.divergence import kl_rows

BOX_WEIGHT = 0.25
BoxLogits = Callable[[Tensor, Tensor], Tensor]
"""(image, location) index vectors (K,) -> (K, E) the teacher's box logits there."""


@dataclass(frozen=True)
class Responses:
    """How strongly a teacher responds: all that a selection depends on, besides the boxes that it thins.

    Attributes:
        scores: (B, N) largest class probability; `labels` (B, N): of which class.
        boxes: (B, N) response of the box distribution.
        of_scores, of_boxes: (B, S, 3) their `statistics`.
    """

    scores: Tensor
    labels: Tensor
    boxes: Tensor
    of_scores: Tensor
    of_boxes: Tensor


@dataclass(frozen=True)
class Selection:
    """What is distilled: a mask (B, N) for class logits; for boxes, pairs of index vectors (image, location)."""

    cls_mask: Tensor
    box_image: Tensor
    box_place: Tensor


@dataclass(frozen=True)
class Taught:
    """What a teacher says where it is listened to: K rows of class logits, M of box logits with their class scores."""

    cls_image: Tensor
    cls_place: Tensor
    cls_logits: Tensor
    box_image: Tensor
    box_place: Tensor
    box_logits: Tensor
    box_scores: Tensor


def responses(teacher: Forward, params: ERDParams) -> Responses:
    """The teacher's responses, measured as `params` say."""
    logits, labels = teacher.cls_logits.max(-1)
    scores = logits.double().sigmoid().float()  # float32 rounds the last numbers of a batch otherwise than the others
    boxes, parts = box_response(teacher.box_logits, params.box_response), scopes(teacher.level_sizes, params)
    return Responses(scores, labels, boxes, statistics(scores, parts), statistics(boxes, parts))


def scopes(level_sizes: tuple[int, ...], params: ERDParams) -> tuple[int, ...]:
    """The sizes of the parts of an image that have statistics of their own."""
    return level_sizes if params.stat_scope == "per_level" else (sum(level_sizes),)


def statistics(responses_BN: Tensor, parts: tuple[int, ...]) -> Tensor:
    """(B, S, 3) mean, standard deviation (unbiased; nan of one location) and minimum of each part of an image."""
    rows = []
    for part in responses_BN.split(parts, dim=1):
        mean = part.mean(1)
        std = part.std(1) if part.shape[1] > 1 else torch.full_like(mean, torch.nan)
        rows.append(torch.stack([mean, std, part.amin(1)], -1))
    return torch.stack(rows, 1)


def elastic_mask(responses_BN: Tensor, alpha: float, statistics_BS3: Tensor, parts: tuple[int, ...]) -> Tensor:
    """Where a response exceeds mean + alpha * std of its part of the image.

    One location, or responses all alike, select nothing.
    """
    sizes = torch.tensor(parts, device=responses_BN.device)
    threshold = elastic_threshold(statistics_BS3, alpha).repeat_interleave(sizes, 1)
    # The mean of equal numbers may round below them.
    return (responses_BN > threshold) & (responses_BN > statistics_BS3[..., 2].repeat_interleave(sizes, 1))


def elastic_threshold(statistics_BS3: Tensor, alpha: float) -> Tensor:
    """(B, S) mean + alpha * std."""
    return statistics_BS3[..., 0] + alpha * statistics_BS3[..., 1]


def box_response(box_logits: Tensor, kind: str) -> Tensor:
    """(B, N) how strongly a location answers about its box."""
    edges = box_logits.unflatten(-1, (4, -1))
    if kind == "max_logit":
        return box_logits.amax(-1)
    if kind == "max_prob":
        return edges.softmax(-1).amax((-2, -1))
    return edges.amax(-1).mean(-1)


def taught(teacher: Forward, params: ERDParams) -> Taught:
    """What is listened to of a whole forward pass."""
    found = responses(teacher, params)
    chosen = select(found, lambda image, place: teacher.box_logits[image, place], teacher, params)
    image, place = chosen.cls_mask.nonzero(as_tuple=True)
    at_boxes = chosen.box_image, chosen.box_place
    return Taught(
        image, place, teacher.cls_logits[image, place], *at_boxes, teacher.box_logits[at_boxes], found.scores[at_boxes]
    )


def select(found: Responses, box_logits: BoxLogits, grid: Grid, params: ERDParams) -> Selection:
    """The locations to distil; boxes thinned by class-aware NMS of the teacher's own boxes, image by image."""
    cls_mask, box_mask = candidates(found, grid.level_sizes, params)
    image, place = box_mask.nonzero(as_tuple=True)
    boxes = teacher_boxes(box_logits(image, place), place, grid, params.decode_with_stride)
    kept = _nms_by_image(image, boxes, found.scores[image, place], found.labels[image, place], params.nms_iou)
    return Selection(cls_mask, image[kept], place[kept])


def candidates(found: Responses, level_sizes: tuple[int, ...], params: ERDParams) -> tuple[Tensor, Tensor]:
    """Masks (B, N) of the locations that the rule `params.select` picks for classes and, before NMS, for boxes."""
    if params.select == "all":
        return (everything := found.scores > -torch.inf), everything
    if params.select == "fixed_thr":
        return (mask := found.scores > params.thr), mask
    if params.select == "topk":
        return _top(found.scores, params.topk), _top(found.boxes, params.topk)
    parts = scopes(level_sizes, params)
    of_classes = elastic_mask(found.scores, params.alpha_cls, found.of_scores, parts)
    return of_classes, elastic_mask(found.boxes, params.alpha_box, found.of_boxes, parts)


def _top(responses_BN: Tensor, count: int) -> Tensor:
    top = responses_BN.argsort(dim=1, descending=True, stable=True)[:, :count]  # of equal ones the first
    return torch.zeros_like(responses_BN, dtype=torch.bool).scatter(1, top, True)


def teacher_boxes(box_logits: Tensor, place: Tensor, grid: Grid, with_stride: bool) -> Tensor:
    """(K, 4) the teacher's boxes. The released code (`with_stride=False`) has centres in px, sides in strides."""
    distances = expected_distances(box_logits)
    return boxes_around(grid.centers[place], distances * grid.strides[place, None] if with_stride else distances)


def _nms_by_image(image: Tensor, boxes: Tensor, scores: Tensor, labels: Tensor, iou: float) -> Tensor:
    kept = [image[:0]]
    for number in image.unique().tolist():
        rows = (image == number).nonzero().squeeze(1)
        _, keep = batched_nms(boxes[rows], scores[rows], labels[rows], {"type": "nms", "iou_threshold": iou})
        kept.append(rows[keep])
    return torch.cat(kept)


def class_terms(student_C: Tensor, teacher_C: Tensor, params: ERDParams) -> Tensor:
    """(...) distance of the student's old-class logits (..., C) from the teacher's; 0 where they agree."""
    if params.cls_loss == "kl":
        return kl_rows(student_C, teacher_C, params.T)
    teacher_C = teacher_C.detach()
    target = teacher_C.sigmoid()
    if params.cls_loss == "l2_sigmoid":
        return (student_C.sigmoid() - target).square().mean(-1)
    if params.cls_loss == "bce":
        entropy = F.binary_cross_entropy_with_logits(teacher_C, target, reduction="none")
        return (F.binary_cross_entropy_with_logits(student_C, target, reduction="none") - entropy).mean(-1)
    return (student_C - teacher_C).square().mean(-1)


def per_image_class(student: Forward, known: Taught, old: Tensor, params: ERDParams) -> tuple[Tensor, Tensor]:
    """(B,) sums of the class terms over each image's selection, and its sizes."""
    image = known.cls_image
    terms = class_terms(student.cls_logits[image, known.cls_place][:, old], known.cls_logits, params)
    zeros = terms.new_zeros(len(student.cls_logits))
    return zeros.index_add(0, image, terms), zeros.index_add(0, image, torch.ones_like(terms))


def per_image_box(student: Forward, known: Taught, old: Tensor, params: ERDParams) -> tuple[Tensor, Tensor, Tensor]:
    """(B,) sums of the weighted box terms over each image's kept boxes, their number, the sum of their weights."""
    image, place = known.box_image, known.box_place
    own = student.box_logits[image, place].unflatten(-1, (4, -1))
    terms = kl_rows(own, known.box_logits.unflatten(-1, (4, -1)), params.T).mean(-1)
    weights = torch.ones_like(terms)
    if params.box_weight == "student":
        weights = student.cls_logits[image, place][:, old].detach().sigmoid().amax(-1)
    elif params.box_weight == "teacher":
        weights = known.box_scores.detach()
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

    def __call__(self, student: Forward, teacher: Forward | Taught, old: Tensor, batch: Batch) -> dict[str, Tensor]:
        params, images = self.params, len(student.cls_logits)
        known = taught(teacher, params) if isinstance(teacher, Forward) else teacher
        sums, sizes = per_image_class(student, known, old, params)
        loss_cls = reduced(sums, sizes, sizes, params.cls_reduction)
        sums, sizes, weights = per_image_box(student, known, old, params)
        plain = sizes if params.box_reduction == "concat_mean" else torch.ones_like(sizes)
        norms = {"sum": plain, "count": sizes, "weight_sum": weights}[params.box_norm]
        loss_box = reduced(sums, sizes, norms, params.box_reduction)
        return {
            "loss_dist_cls": params.lambda_cls * loss_cls,
            "loss_dist_bbox": params.lambda_box * loss_box,
            "n_sel_cls": torch.as_tensor(len(known.cls_image) / images),
            "n_sel_box": torch.as_tensor(len(known.box_image) / images),
        }
