"""SID in its feature and logit form: keep old class logits and intermediate features close to the teacher's.

Source: Peng, Zhao, Maksai, Lovell, arXiv 2012.15439, in the reduced form of repository pastifra/Continual_Nanodet: no
selection of locations, no relation of instances. There alpha and beta change places from method to method; here
`w_cls` is the class term's and `w_feat` the features'.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from search_spaces.sid import SIDParams
from trainables.detectors.forward import Batch, Forward


def class_term(student: Forward, teacher: Forward, old: Tensor) -> Tensor:
    """The mean squared difference of old class logits; 0 without old classes."""
    total = (student.cls_logits[..., old] - teacher.cls_logits.detach()).square().sum()
    return total / max(teacher.cls_logits.numel(), 1)


def feature_term(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """The sum over levels (B, channels, H, W) of the mean squared difference."""
    pairs = zip(student, teacher, strict=True)
    return torch.stack([(own - taught.detach()).square().mean() for own, taught in pairs]).sum()


class SID:
    """The distiller: `loss_sid_cls`, `loss_sid_feat`, those whose weight is not 0; latent distillation's as well."""

    def __init__(self, params: SIDParams) -> None:
        self.params = params

    def __call__(self, student: Forward, teacher: Forward, old: Tensor, batch: Batch) -> dict[str, Tensor]:
        params, losses = self.params, {}
        if params.w_cls:
            losses["loss_sid_cls"] = params.w_cls * class_term(student, teacher, old)
        if params.w_feat:  # a gradient of zeros can change the layout, and so the last bits, of what it is added to
            there = [name for name in params.features if name in teacher.features]  # a head may have one tower
            parts = [feature_term(student.features[name], teacher.features[name]) for name in there]
            levels = len(student.level_sizes) if params.feat_reduce == "mean" else 1
            losses["loss_sid_feat"] = params.w_feat * torch.stack(parts).sum() / levels
        return losses
