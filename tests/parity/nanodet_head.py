"""NanoDet-Plus's losses and assigner, against the original's.

`nanodet_qfl`: the focal losses row by row. `nanodet_dsla`: the assigner on one image. `nanodet_head`: a batch from
predictions to the three losses, with the background (`plus`) and without (`dist`, the released distillation head).
"""

from __future__ import annotations

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from tests.parity.comparison import BOX_GRADIENT, BOXES, EXACT, GRADIENT, LOSS, Comparison, Oracle
from trainables.detectors import dsla
from trainables.detectors.forward import Forward, boxes_around, expected_distances
from trainables.detectors.gfl_losses import distribution_focal, gfl_terms, quality_focal


def check(oracle: Oracle) -> Comparison:
    """The comparison of whatever the file is about."""
    comparison = Comparison(oracle)
    if "pred_logits" in oracle:
        _check_rows(comparison, oracle)
    elif "preds" in oracle:
        _check_batch(comparison, oracle)
    else:
        _check_assigner(comparison, oracle)
    return comparison


def _check_rows(comparison: Comparison, oracle: Oracle) -> None:
    logits = torch.from_numpy(oracle["pred_logits"]).requires_grad_()
    labels, scores, weight = (torch.from_numpy(oracle[name]) for name in ("labels", "scores", "weight"))
    number = oracle["avg_factor"].item()
    for name, share in (("qfl", 1.0), ("distqfl", 0.0)):
        rows = quality_focal(logits, labels, scores, oracle["beta"].item(), share).sum(-1)
        loss = (rows * weight).sum() / number
        comparison.compare(f"exp_{name}_rows", rows.detach(), LOSS)
        comparison.compare(f"exp_{name}_loss", loss.item(), LOSS)
        comparison.compare(f"exp_grad_{name}", torch.autograd.grad(loss, logits)[0], GRADIENT)
    edges = torch.from_numpy(oracle["dfl_logits"]).requires_grad_()
    rows = distribution_focal(edges, torch.from_numpy(oracle["dfl_target"]))
    loss = 0.25 * (rows * weight).sum() / (4 * number)
    comparison.compare("exp_dfl_rows", rows.detach(), LOSS)
    comparison.compare("exp_dfl_loss", loss.item(), LOSS)
    comparison.compare("exp_grad_dfl", torch.autograd.grad(loss, edges)[0], GRADIENT)


def _check_assigner(comparison: Comparison, oracle: Oracle) -> None:
    def tensor(name: str) -> Tensor:
        return torch.from_numpy(oracle[name])

    priors, boxes = tensor("priors"), tensor("decoded_boxes")
    distances = expected_distances(tensor("reg_logits"))
    comparison.compare("exp_integral", distances, LOSS)
    comparison.compare("decoded_boxes", boxes_around(priors[:, :2], distances * priors[:, 2:3]), BOXES)
    present, known = tensor("gt_boxes"), tensor("gt_labels")
    index, ious = dsla.matched(
        priors[:, :2], tensor("cls_logits"), boxes, present, known, oracle["topk"].item(), oracle["iou_factor"].item()
    )
    comparison.compare("exp_gt_inds", index + 1, EXACT)
    labels = torch.where(index >= 0, known[index.clamp(min=0)], -1) if len(known) else torch.full_like(index, -1)
    comparison.compare("exp_labels", labels, EXACT)
    nothing = torch.full_like(ious, -1.0 if len(known) else 0.0)
    comparison.compare("exp_max_overlaps", torch.where(index >= 0, ious, nothing), LOSS)
    for name in ("exp_bbox2distance", "exp_bbox2distance_clamped"):
        if name in oracle:
            comparison.ignore(name, "distances to a box are taken inside the loss; nanodet_head compares them")


def _check_batch(comparison: Comparison, oracle: Oracle) -> None:
    classes, reg_max = oracle["num_classes"].item(), oracle["reg_max"].item()
    preds, priors = torch.from_numpy(oracle["preds"]).requires_grad_(), torch.from_numpy(oracle["priors"])
    logits, edges = preds.split([classes, 4 * (reg_max + 1)], -1)
    output = Forward(logits, edges, priors[:, :2], priors[:, 2], (len(priors),))
    samples = []
    for image, count in enumerate(oracle["gt_count"].tolist()):
        boxes, labels = (torch.from_numpy(oracle[name])[image, :count] for name in ("gt_boxes", "gt_labels"))
        sample = DetDataSample()
        sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
        samples.append(sample)
    targets = dsla.assign(classes, output, samples)
    comparison.compare("exp_labels", targets.labels, EXACT)
    comparison.ignore("exp_label_scores", "they are the IoUs of the predictions, which the loss takes itself")
    comparison.ignore("exp_dist_targets", "distances to a box are taken inside the loss")
    weights = tuple(oracle[name].item() for name in ("w_qfl", "w_giou", "w_dfl"))
    for name, share in (("plus", 1.0), ("dist", 0.0)):
        terms = gfl_terms(
            output, targets, torch.ones(classes, dtype=torch.bool), weights=weights, average_eps=False,
            negative_weight=share,
        )  # fmt: skip
        for part, rows in (("qfl", terms.cls), ("bbox", terms.bbox), ("dfl", terms.dfl)):
            comparison.compare(f"exp_{name}_loss_{part}", rows.sum().item(), LOSS)
        total = terms.cls.sum() + terms.bbox.sum() + terms.dfl.sum()
        comparison.compare(f"exp_{name}_total", total.item(), LOSS)
        gradient = torch.autograd.grad(total, preds, retain_graph=True)[0]
        comparison.compare(f"exp_grad_{name}_total", gradient, BOX_GRADIENT)
