"""LwF's and SID's terms, against the training steps of Continual NanoDet, on the tensors that its networks returned."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.parity.comparison import GRADIENT, LOSS, Comparison, Oracle
from trainables.detectors.forward import Forward
from trainables.distillation.lwf import output_terms
from trainables.distillation.sid import class_term, feature_term


def check(oracle: Oracle) -> Comparison:
    """The comparison of both methods' terms, totals and gradients."""
    comparison = Comparison(oracle)
    scalar = {name: value.item() for name, value in oracle.items() if value.ndim == 0}
    out = torch.from_numpy(oracle["head_out_student"]).requires_grad_()
    student, teacher = _forward(out, oracle), _forward(torch.from_numpy(oracle["head_out_teacher"]), oracle)
    everything, old = torch.arange(scalar["num_classes"]), torch.arange(scalar["n_old"])
    lwf = output_terms(student, teacher, everything, with_boxes=True)
    cls = class_term(student, _with_classes(teacher, old), old)
    towers = [
        [torch.from_numpy(oracle[f"tower_{who}_{level}"]) for level in range(4)] for who in ("student", "teacher")
    ]
    own = [level.requires_grad_() for level in towers[0]]
    feat = feature_term(own, towers[1])
    alpha, beta, detection = scalar["alpha"], scalar["beta"], scalar["det_loss"]
    totals = {
        "lwf_mse": lwf,
        "lwf_total": detection + alpha * lwf,
        "cls_mse": cls,
        "tower_mse_sum": feat,
        "sid_term_times_alpha": feat,
        "sid_term_times_beta": cls,
        "sid_total": detection + alpha * feat + beta * cls,
        "ld_term_times_alpha": cls,
        "ld_term_times_beta": feat,
        "ld_total": detection + alpha * cls + beta * feat,
    }
    for name, value in totals.items():
        if f"exp_{name}" in oracle:
            comparison.compare(f"exp_{name}", value.item(), LOSS)
    _compare_gradients(comparison, oracle, out, {"lwf_mse": lwf, "cls_mse": cls})
    for level, (tower, gradient) in enumerate(zip(own, torch.autograd.grad(feat, own), strict=True)):
        assert tower.shape == gradient.shape
        comparison.compare(f"exp_grad_tower_mse_wrt_tower_{level}", gradient, GRADIENT)
    return comparison


def _compare_gradients(comparison: Comparison, oracle: Oracle, out: Tensor, terms: dict[str, Tensor]) -> None:
    for name, term in terms.items():
        if f"exp_grad_{name}_wrt_head_out" in oracle:
            (gradient,) = torch.autograd.grad(term, out, retain_graph=True)
            comparison.compare(f"exp_grad_{name}_wrt_head_out", gradient, GRADIENT)


def _forward(out: Tensor, oracle: Oracle) -> Forward:
    classes = oracle["num_classes"].item()
    sizes = tuple(int(height * width) for height, width in oracle["level_hw"])
    strides = torch.from_numpy(oracle["strides"]).float().repeat_interleave(torch.tensor(sizes))
    return Forward(out[..., :classes], out[..., classes:], torch.zeros(sum(sizes), 2), strides, sizes)


def _with_classes(output: Forward, channels: Tensor) -> Forward:
    return Forward(
        output.cls_logits[..., channels], output.box_logits, output.centers, output.strides, output.level_sizes
    )
