"""What one forward pass of a dense detector says, flattened over its pyramid levels.

Shape suffixes: B images, N locations (all levels, in stride order, row-major inside a level), C classes,
E = 4 * (reg_max + 1) box-distribution logits, in the edge order left, top, right, bottom.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import torch
from mmdet.structures import DetDataSample
from numpy.typing import NDArray
from torch import Tensor

LOGITS = ("cls_logits", "box_logits", "joint_logits", "obj_logits")


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
    def logits(self) -> dict[str, Tensor]:
        """By name all that it says beside features."""
        return {name: value for name in LOGITS if (value := getattr(self, name, None)) is not None}

    @property
    def grid_rows(self) -> dict[str, NDArray[Any]]:
        """Where its locations are, as arrays of a table."""
        return {
            "centers": self.centers.numpy(force=True),
            "strides": self.strides.numpy(force=True),
            "level_sizes": np.array(self.level_sizes),
        }

    @property
    def score_logits(self) -> Tensor:
        """(B, N, C) whose sigmoid is the score that the detector trains and is tested with."""
        return self.cls_logits if self.joint_logits is None else self.joint_logits

    @property
    def scores(self) -> Tensor:
        """(B, N, C) with which the detector is tested."""
        return self.score_logits.sigmoid()

    @property
    def boxes(self) -> Tensor:
        """(B, N, 4) x1, y1, x2, y2 in px: the boxes that the distributions mean."""
        return boxes_around(self.centers, expected_distances(self.box_logits) * self.strides[:, None])

    def first(self, count: int) -> Self:
        """What it says of the first `count` images."""
        features = {name: [level[:count] for level in levels] for name, levels in self.features.items()}
        changed: dict[str, Any] = {name: value[:count] for name, value in self.logits.items()}
        return replace(self, **changed, features=features)

    @property
    def anchors(self) -> Tensor:
        """(N, 4) the square anchors, x1, y1, x2, y2 in px."""
        half = (self.strides * self.anchor_side / 2)[:, None]
        return torch.cat([self.centers - half, self.centers + half], -1)


@dataclass(frozen=True)
class CodedForward(Forward):
    """Raw outputs of a detector of YOLOX's kind.

    Attributes:
        box_logits: (B, N, 4) codes: the box's centre from the location's, in strides, and the logarithm of its width
            and height in strides.
        obj_logits: (B, N) objectness before the sigmoid.
    """

    obj_logits: Tensor = field(kw_only=True)

    @property
    def scores(self) -> Tensor:
        """(B, N, C) class probability times objectness."""
        return self.cls_logits.sigmoid() * self.obj_logits.sigmoid()[..., None]

    @property
    def boxes(self) -> Tensor:
        """(B, N, 4) x1, y1, x2, y2 in px."""
        centers = self.centers + self.box_logits[..., :2] * self.strides[:, None]
        half = self.box_logits[..., 2:].exp() * self.strides[:, None] / 2
        return torch.cat([centers - half, centers + half], -1)


@dataclass(frozen=True)
class Targets:
    """What each location should say. Labels (B, N) are label ids, `background` where nothing is; `weights` (B, N) are
    0 where a location is padding; `boxes` (B, N, 4) in px count where a label is not background;
    `num_pos` is the sum over images of max(positives, 1)."""

    labels: Tensor
    weights: Tensor
    boxes: Tensor
    num_pos: float
    background: int


Samples = Sequence[DetDataSample]


@dataclass(frozen=True)
class Batch:
    """The ground truth of a batch: its samples, and what each location should say, as the detector's family has it."""

    samples: Samples
    targets: Any


Distiller = Callable[[Forward, Any, Tensor, Batch], dict[str, Tensor]]
"""(student, teacher, old class channels of the student, ground truth) -> named losses and counts.

The teacher is a `Forward` or, for methods that listen to it here and there alone, what is left of one in a table."""


Output = TypeVar("Output", bound=Forward)


class Completes(Protocol):
    """Adds boxes to samples from what the teacher says of them."""

    def __call__(self, teacher: Any, samples: Samples) -> list[DetDataSample]:
        """The samples with boxes of old classes beside their own; those given stay as they are."""

    def weighed(self, targets: Any, samples: Samples, labelled: Tensor) -> Any:
        """`targets` with what the added boxes count.

        Args:
            samples: as completed.
            labelled: (B, C) whether an image carries real boxes of a class.
        """


def n_pseudo(before: Samples, after: Samples) -> float:
    """Boxes added per image."""
    added = sum(len(one.gt_instances) - len(other.gt_instances) for one, other in zip(after, before, strict=True))
    return added / len(before)


def rounded(output: Output, dtype: str) -> Output:
    """A forward pass whose logits have the precision of `dtype`, `float32` or `float16`, in float32."""
    if dtype == "float32":
        return output
    features = {name: [level.half().float() for level in levels] for name, levels in output.features.items()}
    changed: dict[str, Any] = {name: value.half().float() for name, value in output.logits.items()}
    return replace(output, **changed, features=features)


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
