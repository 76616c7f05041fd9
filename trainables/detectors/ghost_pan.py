"""GhostPAN, the neck of NanoDet-Plus: a path aggregation network of ghost modules, with one extra level.

Source: repository RangiLyu/nanodet; ghost modules: Han et al., CVPR 2020, arXiv 1911.11907. Names of modules are those
of that repository, so that its weights load.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.detectors.shufflenet import leaky


class ConvNorm(nn.Module):
    """A 1x1 convolution, norm, activation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.act = leaky()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class DepthwiseSeparable(nn.Module):
    """A depthwise and a 1x1 convolution, each with norm and activation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, kernel, stride, kernel // 2, groups=inputs, bias=False)
        self.dwnorm = nn.BatchNorm2d(inputs)
        self.pointwise, self.pwnorm = nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.act = leaky()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.pwnorm(self.pointwise(self.act(self.dwnorm(self.depthwise(x))))))


class GhostModule(nn.Module):
    """Half of the channels by a 1x1 convolution, the other half from those by a depthwise one."""

    def __init__(self, inputs: int, outputs: int, active: bool = True) -> None:
        super().__init__()
        half = outputs // 2
        act = leaky if active else nn.Identity
        self.primary_conv = nn.Sequential(nn.Conv2d(inputs, half, 1, bias=False), nn.BatchNorm2d(half), act())
        self.cheap_operation = nn.Sequential(
            nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False), nn.BatchNorm2d(half), act()
        )

    def forward(self, x: Tensor) -> Tensor:
        primary = self.primary_conv(x)
        return torch.cat([primary, self.cheap_operation(primary)], 1)


class GhostBottleneck(nn.Module):
    """Two ghost modules beside a shortcut of a depthwise and a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.ghost1, self.ghost2 = GhostModule(inputs, outputs), GhostModule(outputs, outputs, active=False)
        self.shortcut = nn.Sequential(
            nn.Conv2d(inputs, inputs, kernel, 1, kernel // 2, groups=inputs, bias=False),
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.ghost2(self.ghost1(x)) + self.shortcut(x)
        return out


class GhostBlocks(nn.Module):
    """One bottleneck, under the name that the original's weights have."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(GhostBottleneck(inputs, outputs, kernel))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(x)
        return out


class GhostPAN(BaseModule):
    """Levels with strides 8, 16, 32 and 64 from stages with strides 8, 16 and 32.

    Args:
        in_channels: of the stages.
        out_channels: of every level.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        kernel = 5
        steps = range(len(in_channels) - 1)
        self.reduce_layers = nn.ModuleList(ConvNorm(width, out_channels) for width in in_channels)
        self.top_down_blocks = nn.ModuleList(GhostBlocks(2 * out_channels, out_channels, kernel) for _ in steps)
        self.downsamples = nn.ModuleList(DepthwiseSeparable(out_channels, out_channels, kernel, 2) for _ in steps)
        self.bottom_up_blocks = nn.ModuleList(GhostBlocks(2 * out_channels, out_channels, kernel) for _ in steps)
        self.extra_lvl_in_conv = nn.ModuleList([DepthwiseSeparable(out_channels, out_channels, kernel, 2)])
        self.extra_lvl_out_conv = nn.ModuleList([DepthwiseSeparable(out_channels, out_channels, kernel, 2)])

    def forward(self, stages: Sequence[Tensor]) -> tuple[Tensor, ...]:
        reduced = [reduce(stage) for reduce, stage in zip(self.reduce_layers, stages, strict=True)]
        inner = [reduced[-1]]
        for low, block in zip(reversed(reduced[:-1]), self.top_down_blocks, strict=True):
            high = F.interpolate(inner[0], scale_factor=2.0, mode="bilinear", align_corners=False)
            inner.insert(0, block(torch.cat([high, low], 1)))
        outs = [inner[0]]
        for high, down, block in zip(inner[1:], self.downsamples, self.bottom_up_blocks, strict=True):
            outs.append(block(torch.cat([down(outs[-1]), high], 1)))
        outs.append(self.extra_lvl_in_conv[0](reduced[-1]) + self.extra_lvl_out_conv[0](outs[-1]))
        return tuple(outs)
