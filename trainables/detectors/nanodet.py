"""NanoDet-Plus (repository RangiLyu/nanodet) without its auxiliary head as mmdet model configs, and its head.

Where a location is and what its box distribution means is as in GFL, so that mmdet's GFL head tests it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.model import bias_init_with_prob
from torch import Tensor, nn

from trainables.detectors.gfl import model
from trainables.detectors.ghost_pan import DepthwiseSeparable
from trainables.detectors.heads import VotingGFLHead
from trainables.recipes import Recipe

Config = dict[str, Any]
WIDTHS = {0.5: (48, 96, 192), 1.0: (116, 232, 464), 1.5: (176, 352, 704)}
REG_MAX = 7
STRIDES = (8, 16, 32, 64)
HERE = "trainables.detectors"


def nanodet(num_classes: int, recipe: Recipe, width: float = 1.0) -> Config:
    """The model config of NanoDet-Plus-m on a ShuffleNetV2 of `width` 0.5, 1 or 1.5."""
    backbone = {"type": f"{HERE}.shufflenet.ShuffleNetV2", "channels": WIDTHS[width]}
    return _model(backbone, 128 if width > 1 else 96, num_classes, recipe)


def nanodet_tiny(num_classes: int, recipe: Recipe) -> Config:
    """The model config of a NanoDet-Plus for 128 px scenes, trained from random weights."""
    backbone = {"type": f"{HERE}.shufflenet.ShuffleNetV2", "channels": WIDTHS[0.5], "repeats": (2, 4, 2)}
    return _model(backbone, 64, num_classes, recipe)


def _model(backbone: Config, channels: int, num_classes: int, recipe: Recipe) -> Config:
    neck = {"type": f"{HERE}.ghost_pan.GhostPAN", "in_channels": backbone["channels"], "out_channels": channels}
    head = {
        "type": f"{HERE}.nanodet.NanoDetPlusHead", "num_classes": num_classes, "in_channels": channels,
        "feat_channels": channels, "stacked_convs": 2, "reg_max": REG_MAX,
        "anchor_generator": {
            "type": "AnchorGenerator", "ratios": [1.0], "octave_base_scale": 1, "scales_per_octave": 1,
            "strides": list(STRIDES),
        },
    }  # fmt: skip
    return model(backbone, neck, head, recipe)


class NanoDetPlusHead(VotingGFLHead):
    """A tower for each level, and one convolution that says class and box distribution."""

    KERNEL = 5

    def _init_layers(self) -> None:
        levels = range(len(self.prior_generator.strides))
        width = self.feat_channels
        self.cls_convs = nn.ModuleList(
            nn.Sequential(*(DepthwiseSeparable(width, width, self.KERNEL) for _ in range(self.stacked_convs)))
            for _ in levels
        )
        outputs = self.cls_out_channels + 4 * (self.reg_max + 1)
        self.gfl_cls = nn.ModuleList(nn.Conv2d(width, outputs, 1) for _ in levels)

    def init_weights(self) -> None:
        """Normal with 0.01, class biases for a probability of 0.01."""
        for module in self.cls_convs.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
        for conv in self.gfl_cls.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.normal_(conv.weight, std=0.01)
                assert conv.bias is not None
                nn.init.constant_(conv.bias, bias_init_with_prob(0.01))
        self._is_init = True

    def towers(self, fpn: Sequence[Tensor]) -> list[Tensor]:
        """The output of the last tower convolution of each level."""
        found = []
        for level, convs in zip(fpn, self.cls_convs, strict=True):
            found.append(convs(level))
        return found

    def outputs(self, towers: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Class and box-distribution logits of each level."""
        both = [conv(tower) for conv, tower in zip(self.gfl_cls, towers, strict=True)]
        split = [level.split([self.cls_out_channels, 4 * (self.reg_max + 1)], 1) for level in both]
        return [classes for classes, _ in split], [boxes for _, boxes in split]

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """As mmdet's GFL head: logits of classes, and of box distributions."""
        return self.outputs(self.towers(x))
