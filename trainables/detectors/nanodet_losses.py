"""NanoDet-Plus's forward pass, flattened, and its losses: GFL's, with targets by its own assigner."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.models import SingleStageDetector
from torch import Tensor

from trainables.detectors import dsla
from trainables.detectors.forward import Forward, Samples, Targets
from trainables.detectors.gfl_losses import on_grid
from trainables.detectors.nanodet import NanoDetPlusHead


def from_stages(detector: SingleStageDetector, stages: Sequence[Tensor]) -> Forward:
    """The detector's raw outputs, in float32, from those of its backbone."""
    head: NanoDetPlusHead = detector.bbox_head
    fpn = detector.neck(stages)
    towers = head.towers(fpn)
    return on_grid(head, *head.outputs(towers), {"cls_tower": towers, "fpn": fpn})


def assign(head: NanoDetPlusHead, output: Forward, samples: Samples) -> Targets:
    """Targets by the dynamic soft label assigner."""
    return dsla.assign(head.num_classes, output, samples)
