"""What one forward pass of a dense detector says, flattened over its pyramid levels.

Shape suffixes: B images, N locations (all levels, in stride order, row-major inside a level), C classes,
E = 4 * (reg_max + 1) box-distribution logits, in the edge order left, top, right, bottom.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from mmdet.structures import DetDataSample
from torch import Tensor


class Grid(Protocol):
    """Where the N locations of a detector are; a `Forward` is one.

    Attributes:
        centers: (N, 2) x and y in px of the padded, resized input.
        strides: (N,) in px.
        level_sizes: number of locations of each level; they sum to N.
    """

    @property
    def centers(self) -> Tensor: ...
    @property
    def strides(self) -> Tensor: ...
    @property
    def level_sizes(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Forward:
    """Raw outputs of a detector at every location of its grid.

    Attributes:
        cls_logits: (B, N, C) before the sigmoid.
        box_logits: (B, N, E) before the softmax.
        centers, strides, level_sizes: see `Grid`.
    """

    cls_logits: Tensor
    box_logits: Tensor
    centers: Tensor
    strides: Tensor
    level_sizes: tuple[int, ...]


Samples = Sequence[DetDataSample]
Distiller = Callable[[Forward, Any, Tensor, Samples], dict[str, Tensor]]
"""(student, teacher, old class channels of the student, samples) -> named losses and counts.

The teacher is a `Forward` or, for methods that listen to it here and there alone, what is left of one in a table."""


def rounded(output: Forward, dtype: str) -> Forward:
    """A forward pass whose logits have the precision of `dtype`, `float32` or `float16`, in float32."""
    if dtype == "float32":
        return output
    return replace(output, cls_logits=output.cls_logits.half().float(), box_logits=output.box_logits.half().float())


def flatten_levels(levels: Sequence[Tensor], channels: int) -> Tensor:
    """(B, N, channels) from one (B, channels, H, W) tensor a level."""
    return torch.cat([level.permute(0, 2, 3, 1).reshape(len(level), -1, channels) for level in levels], dim=1)


def expected_distances(box_logits: Tensor) -> Tensor:
    """(..., 4) distances from the location to the box edges in stride units: the mean of each edge's distribution.

    Source: generalized focal loss, arXiv 2006.04388, equation 5.
    """
    bins = box_logits.shape[-1] // 4
    probabilities = box_logits.reshape(*box_logits.shape[:-1], 4, bins).softmax(-1)
    return probabilities @ torch.arange(bins, dtype=probabilities.dtype, device=probabilities.device)


def boxes_around(centers: Tensor, distances: Tensor) -> Tensor:
    """(..., 4) boxes x1, y1, x2, y2 from (..., 2) centres and (..., 4) distances of the same unit."""
    return torch.cat([centers - distances[..., :2], centers + distances[..., 2:]], dim=-1)
