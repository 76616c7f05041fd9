"""The divergence that LD and ERD share."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def kl_rows(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL divergence (...) of the softened last dimension: T^2 times the mean over its M entries, as in LD and ERD."""
    target = (teacher.detach() / temperature).softmax(-1)
    logs = (student / temperature).log_softmax(-1)
    return temperature**2 * F.kl_div(logs, target, reduction="none").mean(-1)
