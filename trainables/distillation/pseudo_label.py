"""Pseudo-labels: the teacher's detections complete the boxes of old classes that a step's annotations lack.

Source: generic; the released default of repository zhjpqq/ILYOLOX. Detections are taken on the augmented image, in its
coordinates, as a test would take them: NMS by class of boxes above a score.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from mmcv.ops import batched_nms
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor

from search_spaces.pseudo_label import PseudoLabelParams
from trainables.detectors.boxes import of_sample
from trainables.detectors.forward import Forward, Samples, Targets

SMALLEST = 1.0  # px of a side


class PseudoLabels:
    """Completes samples with detections of their teacher.

    Args:
        old: (C_old,) label ids of the teacher's classes.
        nms_iou: of the detector's own test.
    """

    def __init__(self, params: PseudoLabelParams, old: Tensor, nms_iou: float) -> None:
        self.params, self.old, self.nms_iou = params, old, nms_iou

    def __call__(self, teacher: Forward, samples: Samples) -> list[DetDataSample]:
        """The samples with real boxes first, then the teacher's."""
        scores, boxes = teacher.scores, teacher.boxes
        return [self._completed(sample, scores[image], boxes[image]) for image, sample in enumerate(samples)]

    def _completed(self, sample: DetDataSample, scores: Tensor, boxes: Tensor) -> DetDataSample:
        real_boxes = of_sample(sample, boxes)
        found, labels = self.detections(scores, boxes, sample.img_shape)
        real_labels = sample.gt_instances.labels.to(labels)
        same = labels[:, None] == real_labels
        doubled = (bbox_overlaps(found, real_boxes) * same > self.params.dedup_iou).any(1)
        completed = DetDataSample(metainfo=sample.metainfo)
        completed.gt_instances = InstanceData(
            bboxes=torch.cat([real_boxes, found[~doubled]]),
            labels=torch.cat([real_labels, labels[~doubled]]),
        )
        return completed

    def detections(self, scores: Tensor, boxes: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Boxes (K, 4) inside an image of (height, width) `shape` and label ids (K,), best first.

        Args:
            scores: (N, C_old) class probabilities.
            boxes: (N, 4).
        """
        place, label = (scores > self.params.score_thr).nonzero(as_tuple=True)
        found = boxes[place]
        found = torch.stack([found[:, 0::2].clamp(0, shape[1]), found[:, 1::2].clamp(0, shape[0])], -1).flatten(1)
        large = (found[:, 2:] - found[:, :2] >= SMALLEST).all(1)
        found, label, score = found[large], label[large], scores[place, label][large]
        if not len(found):
            return found, label
        _, kept = batched_nms(found, score, label, {"type": "nms", "iou_threshold": self.nms_iou})
        kept = kept[: self.params.max_pseudo]
        return found[kept], self.old.to(label)[label[kept]]

    def weighed(self, targets: Targets, samples: Samples, labelled: Tensor) -> Targets:
        """`targets` with the weight of pseudo-labels; see `Completes`."""
        labels = targets.labels.clamp(max=targets.background - 1)
        positive = targets.labels < targets.background
        pseudo = positive & ~labelled.gather(1, labels)
        return replace(
            targets, weights=torch.where(pseudo, targets.weights * self.params.pseudo_weight, targets.weights)
        )
