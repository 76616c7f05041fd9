"""Parameters and multiply-accumulates against the published ones."""

from __future__ import annotations

import pytest
import torch
from mmdet.models import BaseDetector
from torch import nn

from trainables.complexity import complexity
from trainables.timing import untrained


@pytest.fixture(scope="module")
def detector() -> BaseDetector:
    return untrained("nanodet_plus_m", 20)


def uncounted(detector: BaseDetector, part: str) -> int:
    """What the count published with latent distillation adds to convolutions: 4 for each value of a batch norm. (And 11
    for each interpolated value, half a percent.)"""
    added = []
    hooks = [
        module.register_forward_hook(lambda _, __, out: added.append(4 * out.numel()))
        for module in getattr(detector, part).modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    detector(torch.zeros(1, 3, 320, 320), mode="tensor")
    for hook in hooks:
        hook.remove()
    return sum(added)


def test_nanodet_plus_m_is_as_large_as_published(detector: BaseDetector) -> None:
    parts = complexity(detector, (320, 320))
    assert {name: part.params for name, part in parts.items()} == {
        "backbone": 776_420, "neck": 282_048, "bbox_head": 116_176,
    }  # fmt: skip
    macs = {name: part.macs + uncounted(detector, name) for name, part in parts.items()}
    assert macs["backbone"] == pytest.approx(261.6e6, rel=0.01)
    assert sum(macs.values()) == pytest.approx(465.4e6, rel=0.01)


def test_behind_a_frozen_backbone_a_third_of_the_parameters_train(detector: BaseDetector) -> None:
    parts = complexity(detector, (320, 320))
    assert parts["neck"].params + parts["bbox_head"].params == 398_224


def test_a_detector_keeps_its_mode(detector: BaseDetector) -> None:
    detector.train()
    complexity(detector, (64, 64))
    assert detector.training
    detector.eval()
