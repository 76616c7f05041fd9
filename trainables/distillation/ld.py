"""Localization distillation: distil the distribution of each box edge where boxes are worth localising.

Source: Zheng et al., CVPR 2022, arXiv 2102.12252; repository HikariTJU/LD, whose released code is the reference.
Departures: an image without boxes gives zero, any device works; the class term covers the teacher's classes. Shape
suffixes as in `trainables.detectors.forward`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from search_spaces.ld import LDParams
from trainables.detectors.boxes import of_sample
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
        self._valued: dict[tuple[bytes, tuple[int, ...]], tuple[Tensor, Tensor]] = {}

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
        return torch.stack([self._valuable(grid, of_sample(sample, grid.centers)) for sample in samples])

    def _valuable(self, grid: Forward, boxes: Tensor) -> Tensor:
        """Kept by boxes, as an epoch has the same ones again, and off the device: most locations have no value."""
        params, key = self.params, (boxes.numpy(force=True).tobytes(), grid.level_sizes)
        if key not in self._valued:
            found = valuable(grid.anchors, grid.level_sizes, boxes, params.gamma, params.vlr_metric)
            where = found.nonzero().squeeze(1)
            self._valued[key] = where.cpu(), found[where].cpu()
        where, values = (kept.to(boxes.device) for kept in self._valued[key])
        return values.new_zeros(len(grid.centers)).index_copy(0, where, values)

    def _imitated(self, student: Forward, teacher: Forward, old: Tensor, batch: Batch, main: Tensor) -> Tensor:
        if self.params.imitation == "gibox":
            region = general_instances(student, teacher, old, self.params.gi_scope)
        else:
            rule = finegrained if self.params.imitation == "finegrained" else inside_boxes
            region = torch.stack([rule(student.anchors, of_sample(one, student.centers)) for one in batch.samples])
        found = imitation_terms(student, teacher, region, main)
        if self.params.imitation == "decouple":
            found = found + BACKGROUND_WEIGHT * imitation_terms(student, teacher, ~region, main)
        return found
