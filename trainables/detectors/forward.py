"""What one forward pass of a dense detector says, flattened over its pyramid levels.

Shape suffixes: B images, N locations (all levels, in stride order, row-major inside a level), C classes,
E = 4 * (reg_max + 1) box-distribution logits, in the edge order left, top, right, bottom.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
        features: by name (`cls_tower`, `reg_tower`: outputs of the last convolutions of the head; `fpn`: of the neck)
            one (B, channels, H, W) a level.
        anchor_side: of the square anchor of a location, in strides.
        joint_logits: (B, N, C) whose sigmoid is the score, where that is more than the class's probability (GFLv2).
    """

    cls_logits: Tensor
    box_logits: Tensor
    centers: Tensor
    strides: Tensor
    level_sizes: tuple[int, ...]
    features: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)
    anchor_side: float = 8.0
    joint_logits: Tensor | None = None

    @property
    def score_logits(self) -> Tensor:
        """(B, N, C) whose sigmoid is the score that the detector trains and is tested with."""
        return self.cls_logits if self.joint_logits is None else self.joint_logits

    def first(self, count: int) -> Forward:
        """What it says of the first `count` images."""
        features = {name: [level[:count] for level in levels] for name, levels in self.features.items()}
        names = ("cls_logits", "box_logits", "joint_logits")
        logits = {name: value[:count] for name in names if (value := getattr(self, name)) is not None}
        return replace(self, **logits, features=features)

    @property
    def anchors(self) -> Tensor:
        """(N, 4) the square anchors, x1, y1, x2, y2 in px."""
        half = (self.strides * self.anchor_side / 2)[:, None]
        return torch.cat([self.centers - half, self.centers + half], -1)


@dataclass(frozen=True)
class Targets:
    """What each location should say. Labels (B, N) are label ids, `background` where nothing is; `weights` (B, N) are
    0 where a location is padding or ignored; `boxes` (B, N, 4) in px count where a label is not background;
    `num_pos` is the sum over images of max(positives, 1)."""

    labels: Tensor
    weights: Tensor
    boxes: Tensor
    num_pos: float
    background: int


Samples = Sequence[DetDataSample]


@dataclass(frozen=True)
class Batch:
    """The ground truth of a batch: its samples, and what each location should say."""

    samples: Samples
    targets: Targets


Distiller = Callable[[Forward, Any, Tensor, Batch], dict[str, Tensor]]
"""(student, teacher, old class channels of the student, ground truth) -> named losses and counts.

The teacher is a `Forward` or, for methods that listen to it here and there alone, what is left of one in a table."""


def rounded(output: Forward, dtype: str) -> Forward:
    """A forward pass whose logits have the precision of `dtype`, `float32` or `float16`, in float32."""
    if dtype == "float32":
        return output
    features = {name: [level.half().float() for level in levels] for name, levels in output.features.items()}
    names = ("cls_logits", "box_logits", "joint_logits")
    logits = {name: value.half().float() for name in names if (value := getattr(output, name)) is not None}
    return replace(output, **logits, features=features)


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


def decoded(output: Forward) -> Tensor:
    """(B, N, 4) the boxes that the distributions mean, in px."""
    return boxes_around(output.centers, expected_distances(output.box_logits) * output.strides[:, None])


def boxes_around(centers: Tensor, distances: Tensor) -> Tensor:
    """(..., 4) boxes x1, y1, x2, y2 from (..., 2) centres and (..., 4) distances of the same unit."""
    return torch.cat([centers - distances[..., :2], centers + distances[..., 2:]], dim=-1)
