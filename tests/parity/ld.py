"""Localization distillation, against the head, the assigner and the losses of the original.

`ld_kldiv`: the divergence. `ld_regions`: assignment, valuable region and imitation regions of one image. `ld_loss`:
every loss and gradient of a batch. The original cannot do with an image without boxes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import torch
from mmcv.ops import batched_nms
from mmdet.models.task_modules import ATSSAssigner
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor

from search_spaces.ld import PRESETS, LDParams
from tests.parity.comparison import BOXES, EXACT, GRADIENT, LOSS, Comparison, Oracle
from tests.parity.gfl_batch import GFLBatch, compare_gradient, compare_ground_truth_losses
from trainables.detectors.forward import Batch
from trainables.detectors.gfl_losses import gfl_terms
from trainables.detectors.voting_nms import voting_nms
from trainables.distillation import ld, regions
from trainables.distillation.divergence import kl_rows

OVERLAPS = {"iou": "iou", "iof": "iof", "giou": "giou"}


def check(oracle: Oracle) -> Comparison:
    """The comparison of whatever the file is about."""
    comparison = Comparison(oracle)
    if "pred_logits" in oracle:
        _check_divergence(comparison, oracle)
    elif "scores" in oracle:
        _check_voting(comparison, oracle)
    elif "student_cls_logits" in oracle:
        _check_losses(comparison, LDBatch(oracle))
    else:
        _check_regions(comparison, oracle)
    return comparison


def _check_divergence(comparison: Comparison, oracle: Oracle) -> None:
    student = torch.from_numpy(oracle["pred_logits"]).requires_grad_()
    teacher, weight = torch.from_numpy(oracle["soft_logits"]), torch.from_numpy(oracle["weight"])
    for temperature in (1, 2, 10):
        rows = kl_rows(student, teacher, temperature)
        loss = 0.25 * (weight * rows).sum() / oracle["avg_factor"].item()
        comparison.compare(f"exp_rows_T{temperature}", rows.detach(), LOSS)
        comparison.compare(f"exp_loss_T{temperature}", loss.item(), LOSS)
        comparison.compare(f"exp_grad_T{temperature}", torch.autograd.grad(loss, student)[0], GRADIENT)


def _check_regions(comparison: Comparison, oracle: Oracle) -> None:
    anchors, boxes = torch.from_numpy(oracle["anchors"]), torch.from_numpy(oracle["gt_boxes"])
    labels, sizes = torch.from_numpy(oracle["gt_labels"]), tuple(oracle["num_level_anchors"].tolist())
    found = ATSSAssigner(topk=oracle["atss_topk"].item()).assign(
        InstanceData(priors=anchors), list(sizes), InstanceData(bboxes=boxes, labels=labels)
    )
    comparison.compare("exp_assigned_gt_inds", found.gt_inds, EXACT)
    comparison.compare("exp_assigned_labels", found.labels, EXACT)
    best = torch.where(found.gt_inds > 0, found.max_overlaps, -torch.ones_like(found.max_overlaps))
    comparison.compare("exp_assigned_max_overlaps", best, LOSS)
    values = regions.valuable(anchors, sizes, boxes, oracle["vlr_gamma"].item(), "released")
    comparison.compare("exp_vlr_value", values, LOSS)
    comparison.compare("exp_im_fitnet", regions.inside_boxes(anchors, boxes), EXACT)
    comparison.compare("exp_im_finegrained", regions.finegrained(anchors, boxes), EXACT)
    if "pair_rows" in oracle:
        some = anchors[torch.from_numpy(oracle["pair_rows"])]
        for name, mode in OVERLAPS.items():
            comparison.compare(f"exp_pair_{name}", bbox_overlaps(some, boxes, mode=mode), LOSS)
        comparison.compare("exp_pair_diou", regions.nearness(some, boxes, "released"), LOSS)


class LDBatch(GFLBatch):
    """The inputs of an `ld_loss` file: student and teacher have the same classes."""

    def __init__(self, oracle: Oracle) -> None:
        super().__init__(oracle, oracle["num_classes"].item())
        self.old = torch.arange(self.num_classes)
        self.truth = Batch(self.images, self.targets)

    def features(self, who: str) -> dict[str, list[Tensor]]:
        if f"{who}_feat" not in self.oracle:
            return {}
        sizes = [tuple(size) for size in self.oracle["level_hw"].tolist()]
        flat = self.features_of(who).split([height * width for height, width in sizes], 1)
        levels = zip(flat, sizes, strict=True)
        return {"fpn": [level.transpose(1, 2).unflatten(2, size) for level, size in levels]}

    def features_of(self, who: str) -> Tensor:
        """(B, N, channels) as the file has them."""
        return self.student_features if who == "student" else self.tensor("teacher_feat")

    @cached_property
    def student_features(self) -> Tensor:
        return self.tensor("student_feat").requires_grad_()

    @cached_property
    def params(self) -> LDParams:
        imitation = bytes(self.oracle["imitation_method"]).decode() if "imitation_method" in self.oracle else "none"
        return replace(
            PRESETS["released"],
            w_ld=self.scalar("w_ld"),
            w_vlr=self.scalar("w_vlr"),
            T_ld=self.scalar("T_ld"),
            gamma=self.scalar("vlr_gamma"),
            w_kd=self.scalar("w_kd"),
            T_kd=self.scalar("T_kd"),
            imitation=imitation,
            w_im=self.scalar("w_im"),
            gi_scope="batch",
        )


def _check_losses(comparison: Comparison, batch: LDBatch) -> None:
    comparison.compare("exp_assigned_labels", batch.targets.labels, EXACT)
    comparison.compare("exp_num_pos", batch.targets.num_pos, LOSS)
    everything = torch.ones(len(batch.images), batch.num_classes, dtype=torch.bool)
    terms = gfl_terms(batch.student, batch.targets, everything, normaliser=batch.params.normaliser, average_eps=False)
    compare_ground_truth_losses(comparison, batch, terms)
    _check_places(comparison, batch)
    _check_by_level(comparison, batch)
    losses = ld.LD(batch.params)(batch.student, batch.teacher, batch.old, batch.truth)
    for name in ("ld", "ld_vlr", "kd"):
        comparison.compare(f"exp_sum_loss_{name}", losses[f"loss_{name}"].item(), LOSS)
    comparison.compare("exp_sum_loss_im", losses["loss_im"].item() if "loss_im" in losses else 0.0, LOSS)
    compare_gradient(comparison, "exp_grad_loss_ld_wrt_box", losses["loss_ld"], batch.box_logits)
    compare_gradient(comparison, "exp_grad_loss_ld_vlr_wrt_box", losses["loss_ld_vlr"], batch.box_logits)
    compare_gradient(comparison, "exp_grad_loss_kd_wrt_cls", losses["loss_kd"], batch.cls_logits)
    if "exp_grad_loss_im_wrt_feat" in batch.oracle:
        compare_gradient(comparison, "exp_grad_loss_im_wrt_feat", losses["loss_im"], batch.student_features)
    for name in ("exp_loss_kd_neg_per_level", "exp_sum_loss_kd_neg"):
        comparison.ignore(name, "the original multiplies it by 0; here it is a term of its own, w_kd_vlr")


def _check_places(comparison: Comparison, batch: LDBatch) -> None:
    main = batch.targets.labels < batch.targets.background
    values = ld.LD(batch.params).valuable(batch.student, batch.images)
    comparison.compare("exp_main_mask", main, EXACT)
    comparison.compare("exp_vlr_value", values, LOSS)
    comparison.compare("exp_vlr_mask", values > 0, EXACT)
    if batch.params.imitation == "gibox":
        comparison.ignore("exp_im_region", "the original fills it with another rule's region and uses gi_index")
        mask = regions.general_instances(batch.student, batch.teacher, batch.old, "batch")
        for level, part in enumerate(mask.split(batch.student.level_sizes, 1)):
            name = f"exp_gi_index_level{level}"
            comparison.compare(name, part.flatten().nonzero().squeeze(1), EXACT, sorted(batch.oracle[name].tolist()))
    else:
        rule = regions.finegrained if batch.params.imitation == "finegrained" else regions.inside_boxes
        boxes = [sample.gt_instances.bboxes for sample in batch.images]
        comparison.compare("exp_im_region", torch.stack([rule(batch.student.anchors, one) for one in boxes]), EXACT)


def _check_by_level(comparison: Comparison, batch: LDBatch) -> None:
    """Each term of one level alone: the other levels' locations are left out."""
    params, targets, student, teacher = batch.params, batch.targets, batch.student, batch.teacher
    main = targets.labels < targets.background
    certainty = student.cls_logits.detach().sigmoid().amax(-1) * main
    values = ld.LD(params).valuable(student, batch.images)
    level = torch.arange(len(student.level_sizes)).repeat_interleave(torch.tensor(student.level_sizes))
    found: dict[str, list[float]] = {"ld": [], "ld_vlr": [], "kd": []}
    for number in range(len(student.level_sizes)):
        own = level == number
        found["ld"].append(params.w_ld * ld.box_terms(student, teacher, certainty * own, params.T_ld).item() / 4)
        found["ld_vlr"].append(params.w_vlr * ld.box_terms(student, teacher, values * own, params.T_ld).item() / 16)
        kd = ld.class_terms(student, teacher, batch.old, main & own, params.T_kd)
        found["kd"].append(params.w_kd * kd.item())
    for name, levels in found.items():
        comparison.compare(f"exp_loss_{name}_per_level", levels, LOSS)
    comparison.ignore("exp_loss_im_per_level", "its sum is compared")


def _check_voting(comparison: Comparison, oracle: Oracle) -> None:
    """The boxes that stay after voting; plain NMS is mmcv's own."""
    boxes, scores = torch.from_numpy(oracle["boxes"]), torch.from_numpy(oracle["scores"])
    threshold, most = oracle["iou_threshold"].item(), oracle["max_per_img"].item()
    place, label = (scores > oracle["score_thr"].item()).nonzero(as_tuple=True)
    found, kept = voting_nms(
        boxes[place],
        scores[place, label],
        label,
        threshold,
        oracle["diou_beta"].item(),
        oracle["vote_gate"].item(),
        oracle["vote_sigma"].item(),
    )
    kept = kept[:most]
    comparison.compare("exp_dets", found[:most], BOXES)
    comparison.compare("exp_scores", scores[place, label][kept], EXACT)
    comparison.compare("exp_labels", label[kept], EXACT)
    comparison.compare("exp_kept_flat_index", place[kept] * scores.shape[1] + label[kept], EXACT)
    dets, plain = batched_nms(boxes[place], scores[place, label], label, {"type": "nms", "iou_threshold": threshold})
    comparison.compare("exp_plain_nms_dets", dets[:most, :4], BOXES)
    comparison.compare("exp_plain_nms_scores", dets[:most, 4], EXACT)
    comparison.compare("exp_plain_nms_labels", label[plain[:most]], EXACT)
