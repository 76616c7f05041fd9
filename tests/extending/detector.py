"""GFL on MobileNetV2 (arXiv 1801.04381) with PANet's neck (arXiv 1803.01534), for 128 px scenes."""

from __future__ import annotations

from trainables.detectors.gfl import GFL_HEAD, Config, gfl_head, model
from trainables.recipes import Recipe


def gfl_mobile_tiny(num_classes: int, recipe: Recipe) -> Config:
    """The mmdet config of a detector that trains from random weights."""
    backbone = {"type": "MobileNetV2", "widen_factor": 0.5, "out_indices": (2, 4, 7)}
    neck = {"type": "PAFPN", "in_channels": [16, 48, 1280], "out_channels": 32, "num_outs": 3}
    head = gfl_head(GFL_HEAD, num_classes, channels=32, convs=2, groups=8, reg_max=8, scale=4, strides=(8, 16, 32))
    return model(backbone, neck, head, recipe)
