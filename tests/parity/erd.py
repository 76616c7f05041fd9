"""Elastic response distillation, against the head and the detector of the original.

`erd_select`: thresholds and selection on one image. `erd_loss`: targets, every loss and every gradient of a batch.
The original cannot do with an image in which nothing is selected: nan there, or an exception before anything is stored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from search_spaces.erd import PRESETS, ERDParams
from tests.parity.comparison import BOXES, EXACT, LOSS, Comparison, Oracle
from tests.parity.gfl_batch import GFLBatch, compare_gradient, compare_ground_truth_losses
from trainables.detectors.forward import Batch as GroundTruth
from trainables.detectors.forward import Forward
from trainables.detectors.gfl_losses import GFLTerms, gfl_terms
from trainables.distillation import erd


def check(oracle: Oracle) -> Comparison:
    """The comparison of a selection, or of the losses of a batch."""
    comparison = Comparison(oracle)
    if "student_cls_logits" not in oracle:
        _check_selection(comparison, oracle)
        return comparison
    batch = Batch(oracle)
    _check_targets(comparison, batch)
    compare_ground_truth_losses(comparison, batch, batch.terms)
    for image in range(len(batch.images)):
        _check_image(comparison, batch, image)
    _check_distillation(comparison, batch)
    return comparison


def _check_selection(comparison: Comparison, oracle: Oracle) -> None:
    params = replace(PRESETS["erd_2023"], alpha_cls=oracle["alpha_cls"].item(), alpha_box=oracle["alpha_box"].item())
    cls_logits = torch.from_numpy(oracle["teacher_cls_logits"])[None]
    box_logits = torch.from_numpy(oracle["teacher_box_logits"])[None]
    count = cls_logits.shape[1]
    found = erd.responses(Forward(cls_logits, box_logits, torch.zeros(count, 2), torch.ones(count), (count,)), params)
    statistics, alphas = (found.of_scores, found.of_boxes), (params.alpha_cls, params.alpha_box)
    for kind, mask, of_image, alpha in zip(
        ("cls", "box"), erd.candidates(found, (count,), params), statistics, alphas, strict=True
    ):
        comparison.compare(f"exp_{kind}_inds", mask[0].nonzero().squeeze(1), EXACT)
        comparison.compare(f"exp_{kind}_thr", erd.elastic_threshold(of_image, alpha).squeeze(), LOSS)


class Batch(GFLBatch):
    """The inputs of an `erd_loss` file. The student's first channels are the old classes."""

    def __init__(self, oracle: Oracle) -> None:
        self.num_old = oracle["num_old"].item()
        super().__init__(oracle, self.num_old + oracle["num_new"].item(), first=self.num_old)
        self.old = torch.arange(self.num_old)

    @cached_property
    def params(self) -> ERDParams:
        weight = self.scalar("dist_loss_weight")
        return replace(
            PRESETS["erd_2023"],
            lambda_cls=weight,
            lambda_box=weight,
            T=self.scalar("T"),
            nms_iou=self.scalar("nms_iou"),
        )

    @cached_property
    def terms(self) -> GFLTerms:
        weights = self.scalar("w_qfl"), self.scalar("w_giou"), self.scalar("w_dfl")
        new = (torch.arange(self.num_classes) >= self.num_old).expand(len(self.images), -1)
        return gfl_terms(self.student, self.targets, new, weights=weights, beta=self.scalar("qfl_beta"))

    @cached_property
    def distilled(self) -> Distilled:
        known = erd.taught(self.teacher, self.params)
        sums, sizes = erd.per_image_class(self.student, known, self.old, self.params)
        box_sums, _, _ = erd.per_image_box(self.student, known, self.old, self.params)
        return Distilled(known, self.params.lambda_cls * sums, sizes, self.params.lambda_box * box_sums)


@dataclass(frozen=True)
class Distilled:
    """The selection of a batch, and per image (B,) the weighted sums of terms and the size of the class selection."""

    known: erd.Taught
    cls_sums: Tensor
    cls_sizes: Tensor
    box_sums: Tensor


def _check_targets(comparison: Comparison, batch: Batch) -> None:
    targets = batch.targets
    comparison.compare("exp_assigned_labels", targets.labels - batch.num_old, EXACT)
    comparison.compare("exp_bbox_targets", targets.boxes, BOXES)
    comparison.compare("exp_num_pos_avg_factor", targets.num_pos, LOSS)


def _check_image(comparison: Comparison, batch: Batch, image: int) -> None:
    teacher, known = batch.teacher, batch.distilled.known
    found = erd.responses(teacher, batch.params)
    cls_mask, box_mask = erd.candidates(found, teacher.level_sizes, batch.params)
    places = box_mask[image].nonzero().squeeze(1)
    kept = known.box_place[known.box_image == image]
    boxes = erd.teacher_boxes(teacher.box_logits[image, places], places, teacher, batch.params.decode_with_stride)
    stored = {
        "exp_cls_inds": (cls_mask[image].nonzero().squeeze(1), EXACT),
        "exp_box_inds": (places, EXACT),
        "exp_box_nms_keep": (torch.searchsorted(places, kept), EXACT),
        "exp_box_nms_input_boxes": (boxes, BOXES),
    }
    for name, (got, tolerance) in stored.items():
        if f"{name}_{image}" in batch.oracle:  # the original's NMS stores nothing of an image without boxes
            comparison.compare(f"{name}_{image}", got, tolerance)


def _check_distillation(comparison: Comparison, batch: Batch) -> None:
    distilled = batch.distilled
    unguarded = distilled.cls_sums / distilled.cls_sizes
    alone = zip(distilled.cls_sums.split(1), distilled.cls_sizes.split(1), strict=True)
    guarded = [erd.reduced(total, size, size, batch.params.cls_reduction).item() for total, size in alone]
    comparison.compare("exp_loss_dist_cls_per_image", unguarded.detach(), LOSS)
    comparison.compare("exp_loss_dist_cls_per_image_guarded", guarded, LOSS)
    comparison.compare("exp_loss_dist_bbox_per_image", distilled.box_sums.detach(), LOSS)

    losses = erd.ERD(batch.params)(batch.student, batch.teacher, batch.old, GroundTruth(batch.images, batch.targets))
    loss_cls, loss_bbox = losses["loss_dist_cls"], losses["loss_dist_bbox"]
    comparison.compare("exp_sum_loss_dist_cls", loss_cls.item(), LOSS)
    comparison.compare("exp_sum_loss_dist_bbox", loss_bbox.item(), LOSS)
    terms = batch.terms
    total = loss_cls + loss_bbox + terms.cls.sum() + terms.bbox.sum() + terms.dfl.sum()
    comparison.compare("exp_total_guarded", total.item(), LOSS)
    compare_gradient(comparison, "exp_grad_loss_dist_cls_wrt_cls", loss_cls, batch.cls_logits)
    compare_gradient(comparison, "exp_grad_loss_dist_bbox_wrt_box", loss_bbox, batch.box_logits)
