"""GFL detectors (generalized focal loss, arXiv 2006.04388) as mmdet model configs.

`gfl_r50` and relatives follow mmdet's GFL 1x; `gfl_r18_tiny` and its larger teachers are for the digit scenes.
"""

from __future__ import annotations

from typing import Any

from trainables.recipes import Recipe

Config = dict[str, Any]


GFL_HEAD = "trainables.detectors.heads.VotingGFLHead"


def gfl(num_classes: int, recipe: Recipe, depth: int, head: str = GFL_HEAD, dcn: bool = False) -> Config:
    """The model config of GFL on a ResNet of 18, 34, 50 or 101 layers.

    Args:
        head: class of the head, GFL's or GFLv2's.
        dcn: deformable convolutions (arXiv 1703.06211) in the last three stages.
    """
    widths = (64, 128, 256, 512) if depth < 50 else (256, 512, 1024, 2048)
    backbone = {
        "type": "ResNet", "depth": depth, "num_stages": 4, "out_indices": (0, 1, 2, 3), "style": "pytorch",
        "frozen_stages": 1, "norm_cfg": {"type": "BN", "requires_grad": True}, "norm_eval": True,
    }  # fmt: skip
    neck = {
        "type": "FPN", "in_channels": list(widths), "out_channels": 256, "start_level": 1,
        "add_extra_convs": "on_output", "num_outs": 5,
    }  # fmt: skip
    if dcn:
        backbone |= {
            "dcn": {"type": "DCN", "deform_groups": 1, "fallback_on_stride": False},
            "stage_with_dcn": (False, True, True, True),
        }
    head_config = gfl_head(
        head, num_classes, channels=256, convs=4, groups=32, reg_max=16, scale=8, strides=(8, 16, 32, 64, 128)
    )
    return model(backbone, neck, head_config, recipe)


def gfl_tiny(num_classes: int, recipe: Recipe, depth: int = 18, width: int = 16, head: str = GFL_HEAD) -> Config:
    """The model config of a GFL for 128 px scenes, trained from random weights.

    Args:
        depth: 18 or 34 layers.
        width: channels of the stem and of the first stage.
        head: class of the head, GFL's or GFLv2's.
    """
    neck = {
        "type": "FPN",
        "in_channels": [2 * width, 4 * width, 8 * width],
        "out_channels": 32,
        "start_level": 0,
        "num_outs": 3,
    }
    head_config = gfl_head(head, num_classes, channels=32, convs=2, groups=8, reg_max=8, scale=4, strides=(8, 16, 32))
    return model(tiny_resnet(depth, width), neck, head_config, recipe)


def tiny_resnet(depth: int, width: int) -> Config:
    """A ResNet for 128 px scenes, all of which trains, with outputs of 2, 4 and 8 times `width` channels."""
    return {
        "type": "ResNet", "depth": depth, "base_channels": width, "stem_channels": width, "num_stages": 4,
        "out_indices": (1, 2, 3), "frozen_stages": -1, "norm_eval": False, "style": "pytorch",
    }  # fmt: skip


def gfl_head(
    kind: str,
    num_classes: int,
    channels: int,
    convs: int,
    groups: int,
    reg_max: int,
    scale: int,
    strides: tuple[int, ...],
) -> Config:
    """The config of a GFL head.

    Args:
        kind: its class.
        channels: of the neck, and of the head's own convolutions.
        convs: before the last one, in each of its two towers.
        groups: of the group norm.
        reg_max: the largest distance that a box distribution knows, in strides.
        scale: side of the square anchors, in strides.
    """
    return {
        "type": kind,
        "num_classes": num_classes, "in_channels": channels, "feat_channels": channels,
        "stacked_convs": convs, "reg_max": reg_max,
        "norm_cfg": {"type": "GN", "num_groups": groups, "requires_grad": True},
        "anchor_generator": {
            "type": "AnchorGenerator", "ratios": [1.0], "octave_base_scale": scale, "scales_per_octave": 1,
            "strides": list(strides),
        },
        "loss_cls": {"type": "QualityFocalLoss", "use_sigmoid": True, "beta": 2.0, "loss_weight": 1.0},
        "loss_bbox": {"type": "GIoULoss", "loss_weight": 2.0},
        "loss_dfl": {"type": "DistributionFocalLoss", "loss_weight": 0.25},
    }  # fmt: skip


def preprocessor(recipe: Recipe) -> Config:
    """What normalises and pads a batch."""
    return {
        "type": "DetDataPreprocessor", "mean": recipe.mean, "std": recipe.std, "bgr_to_rgb": True,
        "pad_size_divisor": recipe.pad_divisor,
    }  # fmt: skip


def model(backbone: Config, neck: Config, head: Config, recipe: Recipe) -> Config:
    """A detector that is trained and tested as GFL is."""
    return {
        "type": "GFL",
        "data_preprocessor": preprocessor(recipe),
        "backbone": backbone,
        "neck": neck,
        "bbox_head": head,
        "train_cfg": {
            "assigner": {"type": "ATSSAssigner", "topk": 9}, "allowed_border": -1, "pos_weight": -1, "debug": False,
        },
        "test_cfg": {
            "nms_pre": recipe.nms_pre, "min_bbox_size": 0, "score_thr": recipe.score_thr,
            "nms": {"type": "nms", "iou_threshold": recipe.nms_iou}, "max_per_img": recipe.max_per_img,
        },
    }  # fmt: skip
