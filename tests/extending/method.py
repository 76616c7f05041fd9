"""Soft targets (Hinton, Vinyals, Dean, arXiv 1503.02531): the softened class probabilities of the teacher are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from search_spaces.distributions import LogUniform, Uniform
from search_spaces.growth import LOSS_SCOPE, NEW_ROW_INIT

if TYPE_CHECKING:  # the catalogue reads the parameters, and loads no torch
    from torch import Tensor

    from trainables.detectors.forward import Batch, Forward


@dataclass(frozen=True, kw_only=True, slots=True)
class SoftTargetsParams:
    """Every parameter once: its type, what a search may try, where it comes from, its default."""

    w_soft: Annotated[float, LogUniform(1.0, 1000.0, zero=True), "weight of the divergence, a mean"] = 30.0
    T: Annotated[float, Uniform(1.0, 8.0), "temperature; the paper's small students: 2.5 to 4"] = 2.0
    loss_scope: Annotated[str, LOSS_SCOPE, "class channels that ground truth trains"] = "labelled"
    new_row_init: Annotated[str, NEW_ROW_INIT, "rows of new classes"] = "focal_prior"


PRESETS = {"default": SoftTargetsParams()}


class SoftTargets:
    """The distiller: `loss_soft`, T^2 times the mean KL divergence over images, locations and old classes."""

    def __init__(self, params: SoftTargetsParams) -> None:
        self.params = params

    def __call__(self, student: Forward, teacher: Forward, old: Tensor, batch: Batch) -> dict[str, Tensor]:
        from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

        T = self.params.T
        own, taught = student.cls_logits[..., old] / T, teacher.cls_logits.detach() / T
        entropy = cross_entropy(taught, taught.sigmoid(), reduction="none")
        divergence = cross_entropy(own, taught.sigmoid(), reduction="none") - entropy
        return {"loss_soft": self.params.w_soft * T**2 * divergence.mean()}
