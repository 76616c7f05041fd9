"""Localization distillation: distil the distribution of each box edge where boxes are worth localising.

Source: Zheng et al., CVPR 2022, arXiv 2102.12252; repository HikariTJU/LD, whose released code is the reference.
Departures: an image without boxes gives zero, any device works; the class term covers the teacher's classes. Shape
suffixes as in `trainables.detectors.forward`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from mmdet.structures import DetDataSample
from torch import Tensor

from search_spaces.ld import LDParams
from trainables.detectors.forward import Batch, Forward, Samples
from trainables.distillation.divergence import kl_rows
from trainables.distillation.regions import finegrained, general_instances, inside_boxes, valuable

MAIN_DIVISOR, VLR_DIVISOR = 4, 16
BACKGROUND_WEIGHT = 2.0


def box_terms(student: Forward, teacher: Forward, weights_BN: Tensor, temperature: float) -> Tensor:
    """The weighted sum over locations and edges of the divergence of box distributions."""
    image, place = weights_BN.nonzero(as_tuple=True)
    own, taught = (output.box_logits[image, place].unflatten(-1, (4, -1)) for output in (student, teacher))
    rows = kl_rows(own, taught, temperature).sum(-1)
    return (rows * weights_BN[image, place]).sum() + student.box_logits.sum() * 0


def class_terms(student: Forward, teacher: Forward, old: Tensor, mask_BN: Tensor, temperature: float) -> Tensor:
    """The sum over levels of the mean divergence of class distributions at the locations of `mask_BN`."""
    rows = kl_rows(student.cls_logits[..., old], teacher.cls_logits, temperature)
    return _level_means(rows, mask_BN, student.level_sizes)


def imitation_terms(student: Forward, teacher: Forward, mask_BN: Tensor, present_BN: Tensor) -> Tensor:
    """The sum over levels of the mean squared difference of FPN features at the locations of `mask_BN`.

    A level without positive locations (`present_BN`) counts as zero, as in the released code.
    """
    own, taught = ([level.flatten(2) for level in output.features["fpn"]] for output in (student, teacher))
    rows = torch.cat([(s - t.detach()).square().mean(1) for s, t in zip(own, taught, strict=True)], -1)
    sizes = student.level_sizes
    counted = [
        level & present.any()
        for level, present in zip(mask_BN.split(sizes, 1), present_BN.split(sizes, 1), strict=True)
    ]
    return _level_means(rows, torch.cat(counted, 1), sizes)


def _level_means(rows_BN: Tensor, mask_BN: Tensor, sizes: tuple[int, ...]) -> Tensor:
    levels = zip(rows_BN.split(sizes, 1), mask_BN.split(sizes, 1), strict=True)
    return torch.stack([(rows * mask).sum() / mask.sum().clamp(min=1) for rows, mask in levels]).sum()


class LD:
    """The distiller: `loss_ld`, `loss_ld_vlr`, `loss_kd`, `loss_kd_vlr`, `loss_im`, those whose weight is not 0."""

    def __init__(self, params: LDParams) -> None:
        self.params = params
        self._values: dict[tuple[int, bool, tuple[int, ...]], Tensor] = {}  # an image's boxes never change

    def __call__(self, student: Forward, teacher: Forward, old: Tensor, batch: Batch) -> dict[str, Tensor]:
        params, targets = self.params, batch.targets
        main = targets.labels < targets.background
        certainty = student.score_logits.detach().sigmoid().amax(-1) * main
        values = self.valuable(student, batch.samples) * (targets.weights > 0)
        images = len(main) if params.ld_norm == "per_image" else 1
        losses = {"n_main": main.sum() / len(main), "n_vlr": (values > 0).sum() / len(main)}
        if params.w_ld:
            terms = box_terms(student, teacher, certainty, params.T_ld)
            losses["loss_ld"] = params.w_ld * terms / (MAIN_DIVISOR * images)
        if params.w_vlr:
            terms = box_terms(student, teacher, values, params.T_ld)
            losses["loss_ld_vlr"] = params.w_vlr * terms / (VLR_DIVISOR * images)
        if params.w_kd:
            losses["loss_kd"] = params.w_kd * class_terms(student, teacher, old, main, params.T_kd)
        if params.w_kd_vlr:
            losses["loss_kd_vlr"] = params.w_kd_vlr * class_terms(student, teacher, old, values > 0, params.T_kd)
        if params.imitation != "none" and params.w_im:
            losses["loss_im"] = params.w_im * self._imitated(student, teacher, old, batch, main)
        return losses

    def valuable(self, grid: Forward, samples: Samples) -> Tensor:
        """(B, N) how valuable each location is; see `regions.valuable`."""
        return torch.stack([self._valuable(grid, sample, boxes) for sample, boxes in _with_boxes(grid, samples)])

    def _valuable(self, grid: Forward, sample: DetDataSample, boxes: Tensor) -> Tensor:
        params, key = self.params, _key(grid, sample)
        if key is None or key not in self._values:
            found = valuable(grid.anchors, grid.level_sizes, boxes, params.gamma, params.vlr_metric)
            if key is None:
                return found
            self._values[key] = found
        return self._values[key]

    def _imitated(self, student: Forward, teacher: Forward, old: Tensor, batch: Batch, main: Tensor) -> Tensor:
        if self.params.imitation == "gibox":
            region = general_instances(student, teacher, old, self.params.gi_scope)
        else:
            rule = finegrained if self.params.imitation == "finegrained" else inside_boxes
            region = torch.stack([rule(student.anchors, boxes) for _, boxes in _with_boxes(student, batch.samples)])
        found = imitation_terms(student, teacher, region, main)
        if self.params.imitation == "decouple":
            found = found + BACKGROUND_WEIGHT * imitation_terms(student, teacher, ~region, main)
        return found


def _with_boxes(grid: Forward, samples: Samples) -> Iterator[tuple[DetDataSample, Tensor]]:
    """Each sample and its boxes (K, 4)."""
    for sample in samples:
        boxes = sample.gt_instances.bboxes
        yield sample, getattr(boxes, "tensor", boxes).to(grid.centers)


def _key(grid: Forward, sample: DetDataSample) -> tuple[int, bool, tuple[int, ...]] | None:
    """What a sample's boxes and the grid are determined by; None for one that no data set numbered."""
    image = sample.get("img_id")
    return None if image is None else (image, bool(sample.get("flip", False)), grid.level_sizes)
