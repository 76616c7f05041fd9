"""ShuffleNetV2 as a detector's backbone.

Source: Ma, Zhang, Zheng, Sun, ECCV 2018, arXiv 1807.11164. Names of modules are those of torchvision and of repository
RangiLyu/nanodet, so that their weights load.
"""

from __future__ import annotations

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

STEM = 24
REPEATS = (4, 8, 4)
SLOPE = 0.1


def leaky() -> nn.Module:
    """NanoDet's activation."""
    return nn.LeakyReLU(SLOPE, inplace=True)


def shuffled(features: Tensor, groups: int = 2) -> Tensor:
    """(B, C, H, W) with channels of the groups taken in turn."""
    batch, channels, height, width = features.shape
    mixed = features.view(batch, groups, channels // groups, height, width).transpose(1, 2)
    return mixed.reshape(batch, channels, height, width)


class ShuffleBlock(nn.Module):
    """Half of the channels through three convolutions, the other half as it is; with stride 2 both through some."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half, own = outputs // 2, inputs if stride > 1 else inputs // 2
        self.branch1 = nn.Sequential()
        if stride > 1:
            self.branch1 = nn.Sequential(*_depthwise(inputs, stride), *_pointwise(inputs, half))
        self.branch2 = nn.Sequential(*_pointwise(own, half), *_depthwise(half, stride), *_pointwise(half, half))

    def forward(self, x: Tensor) -> Tensor:
        left, right = (x, x) if len(self.branch1) else x.chunk(2, dim=1)
        return shuffled(torch.cat([self.branch1(left), self.branch2(right)], 1))


def _pointwise(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), leaky()


def _depthwise(channels: int, stride: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False), nn.BatchNorm2d(channels)


class ShuffleNetV2(BaseModule):
    """The outputs of the three stages, with strides 8, 16 and 32.

    Args:
        channels: of the stages.
        repeats: blocks of each stage.
    """

    def __init__(self, channels: tuple[int, ...], repeats: tuple[int, ...] = REPEATS) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(3, STEM, 3, 2, 1, bias=False), nn.BatchNorm2d(STEM), leaky())
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = STEM
        for number, (outputs, count) in enumerate(zip(channels, repeats, strict=True), start=2):
            rest = [ShuffleBlock(outputs, outputs, 1) for _ in range(count - 1)]
            setattr(self, f"stage{number}", nn.Sequential(ShuffleBlock(inputs, outputs, 2), *rest))
            inputs = outputs

    def init_weights(self) -> None:
        """As the paper's code: normal, by the number of inputs."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                std = 0.01 if name.startswith("conv1") else 1.0 / module.weight.shape[1]
                nn.init.normal_(module.weight, 0, std)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.bias, 0.0001)
        self._is_init = True

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.maxpool(self.conv1(x))
        outputs = []
        for stage in (self.stage2, self.stage3, self.stage4):
            x = stage(x)
            outputs.append(x)
        return tuple(outputs)
