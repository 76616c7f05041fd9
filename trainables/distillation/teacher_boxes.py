"""Which of a teacher's boxes become labels of a step: the rules of repository zhjpqq/ILYOLOX, center resampling one.

A location's score is the probability of its likeliest class times its objectness.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from mmcv.ops import batched_nms
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor

from search_spaces.ilyolox import ILYOLOXParams
from trainables.detectors.boxes import of_sample
from trainables.detectors.forward import CodedForward, Samples
from trainables.detectors.yolox_losses import AssignedTargets

DIGITS = 4  # to which the released code rounds thresholds by class
NOBODY = -1


def select(probabilities: Tensor, objectness: Tensor, boxes: Tensor, params: ILYOLOXParams, old: Tensor) -> Tensor:
    """(K,) the locations of one image that are kept, in rising order.

    Args:
        probabilities: (N, C) of classes; objectness: (N,); boxes: (N, 4).
        old: the channels that `cls_mean_std` and `re_sampling` keep boxes of.
    """
    likeliest, label = probabilities.max(-1)
    score = likeliest * objectness
    kept = _RULES[params.select](likeliest, score, label, boxes, params, old).nonzero().squeeze(1)
    if not len(kept):
        return kept
    _, best = batched_nms(boxes[kept], score[kept], label[kept], {"type": "nms", "iou_threshold": params.nms_iou})
    chosen: Tensor = kept[best].sort().values
    return chosen


def _all_by_one(
    likeliest: Tensor, score: Tensor, label: Tensor, boxes: Tensor, params: ILYOLOXParams, old: Tensor
) -> Tensor:
    return score >= params.score_thr


def _all_mean_std(
    likeliest: Tensor, score: Tensor, label: Tensor, boxes: Tensor, params: ILYOLOXParams, old: Tensor
) -> Tensor:
    return score >= likeliest.mean() + params.std_mult * likeliest.std()


def _cls_mean_std(
    likeliest: Tensor, score: Tensor, label: Tensor, boxes: Tensor, params: ILYOLOXParams, old: Tensor
) -> Tensor:
    thresholds = torch.full_like(score, params.score_thr, dtype=torch.float64)
    for own in _of_classes(label, old):
        if own.sum() > 1:
            values = likeliest[own]
            thresholds[own] = round(float(values.mean() + params.std_mult * values.std()), DIGITS)
        elif not params.sparse_fallback:
            thresholds[own] = torch.inf
    return score >= thresholds


def _re_sampling(
    likeliest: Tensor, score: Tensor, label: Tensor, boxes: Tensor, params: ILYOLOXParams, old: Tensor
) -> Tensor:
    """Confident centres of each class, and what overlaps them; a centre's objectness does not count."""
    kept = torch.zeros_like(score, dtype=torch.bool)
    for own in _of_classes(label, old):
        centers = own & (likeliest >= params.thr_center)
        near = bbox_overlaps(boxes, boxes[centers]).amax(1) >= params.iou_other if centers.any() else centers
        kept |= own & (centers | near)
    return kept & (score >= params.thr_other)


def _of_classes(label: Tensor, classes: Tensor) -> Iterator[Tensor]:
    for one in classes.tolist():
        yield label == one


_RULES = {
    "all_by_one": _all_by_one,
    "all_mean_std": _all_mean_std,
    "cls_mean_std": _cls_mean_std,
    "re_sampling": _re_sampling,
}


class TeacherBoxes:
    """Completes samples with the teacher's boxes, which come first, and says what their locations are worth.

    Args:
        labels: (C_teacher,) label ids of the teacher's classes.
        old: those of its channels that count as old, by default all.
    """

    def __init__(self, params: ILYOLOXParams, labels: Tensor, old: Tensor | None = None) -> None:
        self.params, self.labels = params, labels
        self.old = torch.arange(len(labels)) if old is None else old

    def __call__(self, teacher: CodedForward, samples: Samples) -> list[DetDataSample]:
        """The samples; `prior` (K,) of their boxes is the location at which the teacher found one, or `NOBODY`."""
        probabilities, objectness, boxes = teacher.cls_logits.sigmoid(), teacher.obj_logits.sigmoid(), teacher.boxes
        told = zip(samples, probabilities, objectness, boxes, strict=True)
        return [self._completed(*one) for one in told]

    def _completed(
        self, sample: DetDataSample, probabilities: Tensor, objectness: Tensor, boxes: Tensor
    ) -> DetDataSample:
        found = select(probabilities, objectness, boxes, self.params, self.old)
        present = of_sample(sample, boxes)
        labels = self.labels.to(boxes.device)[probabilities[found].argmax(-1)]
        completed = DetDataSample(metainfo=sample.metainfo)
        completed.gt_instances = InstanceData(
            bboxes=torch.cat([boxes[found], present]),
            labels=torch.cat([labels, sample.gt_instances.labels.to(labels)]),
            prior=torch.cat([found, found.new_full((len(present),), NOBODY)]),
        )
        return completed

    def weighed(self, targets: AssignedTargets, samples: Samples, labelled: Tensor) -> AssignedTargets:
        """`targets`, with what the locations of the teacher's boxes count in the losses against ground truth."""
        if self.params.which == "posandprev":
            return targets
        old = of_teacher(targets, samples)[0]
        if self.params.which == "posnoprev":
            new = (~old).float()
            num_new = float((targets.positive & ~old).sum())
            return replace(targets, cls_share=new, box_share=new, num_trained=num_new)
        shares = [torch.where(old, alpha, 1.0) for alpha in (self.params.alpha_cls, self.params.alpha_loc)]
        return replace(targets, cls_share=shares[0], box_share=shares[1])


def of_teacher(targets: AssignedTargets, samples: Samples) -> tuple[Tensor, Tensor]:
    """(B, N) whether a location stands for one of the teacher's boxes, and at which location the teacher found it."""
    priors = torch.full_like(targets.assigned, NOBODY)
    for image, sample in enumerate(samples):
        own = targets.positive[image]
        priors[image, own] = sample.gt_instances.prior[targets.assigned[image, own]]
    return priors != NOBODY, priors
