"""Small seeded batches, forward passes and detectors, which the tests of training share."""

from __future__ import annotations

import torch
from mmdet.models import BaseDetector
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.structures import InstanceData
from torch import Tensor

from trainables.catalog import DETECTORS
from trainables.detectors.forward import CodedForward, Forward
from trainables.detectors.growth import build_detector

SIDE = 64  # px of an image
STRIDES = (8, 16, 32)
REG_MAX = 8
CHANNELS = 6
Boxes = list[tuple[float, float, float, float]]

register_all_modules()


def tiny(num_classes: int, seed: int = 0, detector: str = "gfl_r18_tiny") -> BaseDetector:
    """A detector of the digit scenes."""
    torch.manual_seed(seed)
    return build_detector(detector, num_classes, DETECTORS[detector].recipe)


def images(count: int, seed: int = 0) -> Tensor:
    """Preprocessed images (count, 3, SIDE, SIDE)."""
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def sample(boxes: Boxes, labels: list[int]) -> DetDataSample:
    """One image with its objects."""
    shape = (SIDE, SIDE)
    found = DetDataSample(metainfo={"img_shape": shape, "pad_shape": shape, "batch_input_shape": shape})
    found.gt_instances = InstanceData(
        bboxes=torch.tensor(boxes).reshape(-1, 4), labels=torch.tensor(labels, dtype=torch.long)
    )
    return found


def forward_pass(num_images: int, num_classes: int, seed: int = 0) -> Forward:
    """What a detector with three levels might say: logits drawn at random."""
    drawn = torch.Generator().manual_seed(seed)
    sizes = tuple((SIDE // stride) ** 2 for stride in STRIDES)
    levels = [torch.cartesian_prod(side := torch.arange(0.0, SIDE, stride), side).flip(1) for stride in STRIDES]
    return Forward(
        torch.randn(num_images, sum(sizes), num_classes, generator=drawn) * 1.5 - 2,
        torch.randn(num_images, sum(sizes), 4 * (REG_MAX + 1), generator=drawn) * 2,
        torch.cat(levels),
        torch.tensor(STRIDES, dtype=torch.float32).repeat_interleave(torch.tensor(sizes)),
        sizes,
        {name: _features(num_images, drawn) for name in ("cls_tower", "reg_tower", "fpn")},
        anchor_side=4.0,
    )


def coded_pass(num_images: int, num_classes: int, seed: int = 0) -> CodedForward:
    """What a detector of YOLOX's kind might say, drawn at random; its boxes are near their locations."""
    drawn = torch.Generator().manual_seed(seed)
    output = forward_pass(num_images, num_classes, seed)
    numbers = len(output.centers)
    return CodedForward(
        torch.randn(num_images, numbers, num_classes, generator=drawn) * 1.5 - 1,
        torch.randn(num_images, numbers, 4, generator=drawn) * 0.3 + 0.5,
        output.centers,
        output.strides,
        output.level_sizes,
        output.features,
        obj_logits=torch.randn(num_images, numbers, generator=drawn) * 1.5 + 1,
    )


def _features(num_images: int, drawn: torch.Generator) -> list[Tensor]:
    sides = [SIDE // stride for stride in STRIDES]
    return [torch.randn(num_images, CHANNELS, side, side, generator=drawn) for side in sides]
