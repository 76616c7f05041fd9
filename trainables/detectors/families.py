"""How detectors of a family are asked and trained, by the kind of their head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mmdet.models import BaseDetector, GFLHead, YOLOXHead
from torch import Tensor

from trainables.detectors import gfl_losses, nanodet_losses, yolox_losses
from trainables.detectors.forward import Forward, Samples, Targets
from trainables.detectors.nanodet import NanoDetPlusHead


@dataclass(frozen=True)
class Family:
    """What a family's module gives.

    Attributes:
        from_stages: the raw outputs of a detector from those of its backbone.
        assign: what each location should say, by a head, a forward pass and samples.
        losses: against ground truth, on the class channels (B, C) that each image trains, and counts.
    """

    from_stages: Callable[[BaseDetector, Any], Forward]
    assign: Callable[[Any, Any, Samples], Targets]
    losses: Callable[..., dict[str, Tensor]]

    def forward(self, detector: BaseDetector, images: Tensor) -> Forward:
        """The raw outputs of a detector on preprocessed images (B, 3, H, W)."""
        return self.from_stages(detector, detector.backbone(images))


def _by_place(head: GFLHead, output: Forward, samples: Samples) -> Targets:
    return gfl_losses.assign(head, samples, output.centers.device)


GFL = Family(gfl_losses.from_stages, _by_place, gfl_losses.losses)
NANODET = Family(nanodet_losses.from_stages, nanodet_losses.assign, gfl_losses.losses)
YOLOX = Family(yolox_losses.from_stages, yolox_losses.assign, yolox_losses.losses)


def family_of(detector: BaseDetector) -> Family:
    """The family of a detector.

    Raises:
        TypeError: a head of none of them.
    """
    kinds = {NanoDetPlusHead: NANODET, GFLHead: GFL, YOLOXHead: YOLOX}
    for kind, family in kinds.items():
        if isinstance(detector.bbox_head, kind):
            return family
    raise TypeError(f"bbox_head must be of {', '.join(kind.__name__ for kind in kinds)}, but is {detector.bbox_head}")
