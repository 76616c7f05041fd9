"""Detectors of YOLOX's kind (arXiv 2107.08430) as mmdet model configs.

`yoloy` is the detector that repository zhjpqq/ILYOLOX calls so: YOLOX's neck and head on a ResNet. Its tiny form is for
the digit scenes.
"""

from __future__ import annotations

from typing import Any

from trainables.detectors.gfl import preprocessor, tiny_resnet
from trainables.recipes import Recipe

Config = dict[str, Any]
STRIDES = (8, 16, 32)
HEAD = "trainables.detectors.heads.VotingYOLOXHead"


def yoloy(num_classes: int, recipe: Recipe, depth: int) -> Config:
    """The model config of YOLOY on a ResNet of 18 or 50 layers."""
    backbone = {
        "type": "ResNet", "depth": depth, "num_stages": 4, "out_indices": (1, 2, 3), "style": "pytorch",
        "frozen_stages": 1, "norm_cfg": {"type": "BN", "requires_grad": True}, "norm_eval": True,
    }  # fmt: skip
    widths = [128, 256, 512] if depth < 50 else [512, 1024, 2048]
    return _model(backbone, widths, 128, num_classes, recipe)


def yoloy_tiny(num_classes: int, recipe: Recipe) -> Config:
    """The model config of a YOLOY for 128 px scenes, trained from random weights."""
    return _model(tiny_resnet(18, 16), [32, 64, 128], 32, num_classes, recipe)


def yolox(num_classes: int, recipe: Recipe, widen: float) -> Config:
    """The model config of mmdet's YOLOX-s (`widen` 0.5) or YOLOX-tiny (0.375)."""
    backbone = {"type": "CSPDarknet", "deepen_factor": 0.33, "widen_factor": widen}
    widths = [int(width * widen) for width in (256, 512, 1024)]
    return _model(backbone, widths, widths[0], num_classes, recipe)


def _model(backbone: Config, widths: list[int], channels: int, num_classes: int, recipe: Recipe) -> Config:
    return {
        "type": "YOLOX",
        "data_preprocessor": preprocessor(recipe),
        "backbone": backbone,
        "neck": {"type": "YOLOXPAFPN", "in_channels": widths, "out_channels": channels, "num_csp_blocks": 1},
        "bbox_head": {
            "type": HEAD, "num_classes": num_classes, "in_channels": channels, "feat_channels": channels,
            "strides": STRIDES,
        },
        "train_cfg": {"assigner": {"type": "SimOTAAssigner", "center_radius": 2.5}},
        "test_cfg": {
            "score_thr": recipe.score_thr, "nms": {"type": "nms", "iou_threshold": recipe.nms_iou},
            "max_per_img": recipe.max_per_img,
        },
    }  # fmt: skip
