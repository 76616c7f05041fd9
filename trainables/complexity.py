"""Parameters and multiply-accumulates of the parts of a detector."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from mmdet.models import BaseDetector
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Part:
    """Of a part of a detector its parameters, and its multiply-accumulates for one image."""

    params: int
    macs: int


@torch.no_grad()
def complexity(detector: BaseDetector, size: tuple[int, int]) -> dict[str, Part]:
    """The parts of a detector by name, on an image of `size` (height, width) px; post-processing is left out.

    With a frozen backbone the backbone is what student and teacher share, and neck and head are what each has alone.
    """
    counter, training = FlopCounterMode(display=False), detector.training
    images = torch.zeros(1, 3, *size, device=next(detector.parameters()).device)
    with counter:
        detector.eval()(images, mode="tensor")
    detector.train(training)
    flops = {name: sum(by.values()) for name, by in counter.get_flop_counts().items()}
    backbone, neck = (flops[f"{type(detector).__name__}.{name}"] for name in ("backbone", "neck"))
    of = {"backbone": backbone, "neck": neck, "bbox_head": flops["Global"] - backbone - neck}
    params = {name: sum(p.numel() for p in getattr(detector, name).parameters()) for name in of}
    return {name: Part(params[name], of[name] // 2) for name in of}
