"""mmdet's heads, with what ours understand besides."""

from __future__ import annotations

import torch
from mmcv.cnn import Scale
from mmdet.models import GFLHead, YOLOXHead
from mmengine.model import normal_init
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.detectors.voting_nms import VotingPostProcess


class VotingGFLHead(VotingPostProcess, GFLHead):  # type: ignore[misc, unused-ignore]
    """GFL's head, whose test may vote; see `trainables.detectors.voting_nms`."""


class VotingYOLOXHead(VotingPostProcess, YOLOXHead):  # type: ignore[misc, unused-ignore]
    """YOLOX's head, whose test may vote."""


class GFLv2Head(VotingGFLHead):
    """GFL's head whose class scores are multiplied by a quality read off the box distributions.

    Source: generalized focal loss V2, arXiv 2011.12885: of each edge the four largest probabilities and their mean, two
    1x1 convolutions, a sigmoid. What it gives as class logits has the product as its sigmoid, so that GFL's loss and
    test stay as they are.
    """

    TOP, CHANNELS = 4, 64

    def _init_layers(self) -> None:
        super()._init_layers()
        inputs = 4 * (self.TOP + 1)
        self.reg_conf = nn.Sequential(nn.Conv2d(inputs, self.CHANNELS, 1), nn.ReLU(), nn.Conv2d(self.CHANNELS, 1, 1))

    def init_weights(self) -> None:
        """As mmdet's, and the quality branch as the paper's code."""
        super().init_weights()
        for layer in (self.reg_conf[0], self.reg_conf[2]):
            normal_init(layer, std=0.01)

    def forward_single(self, x: Tensor, scale: Scale) -> tuple[Tensor, Tensor]:
        """Logits of classes and quality together, and of box distributions."""
        cls_logits, box_logits = super().forward_single(x, scale)
        return self.joint_logits(cls_logits, box_logits), box_logits

    def joint_logits(self, cls_logits: Tensor, box_logits: Tensor) -> Tensor:
        """(B, C, H, W) logits whose sigmoid is class probability times quality."""
        probabilities = box_logits.unflatten(1, (4, -1)).softmax(2)
        top = probabilities.topk(self.TOP, dim=2).values
        quality = self.reg_conf(torch.cat([top, top.mean(2, keepdim=True)], 2).flatten(1, 2))
        log_score = F.logsigmoid(cls_logits) + F.logsigmoid(quality)
        return log_score - (-torch.expm1(log_score)).clamp(min=torch.finfo(torch.float32).tiny).log()
