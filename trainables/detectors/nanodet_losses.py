"""NanoDet-Plus's forward pass, flattened, and its losses: GFL's, with targets by its own assigner."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models import SingleStageDetector
from torch import Tensor

from trainables.detectors import dsla
from trainables.detectors.forward import Forward, Samples, Targets, flatten_levels
from trainables.detectors.nanodet import NanoDetPlusHead


def forward(detector: SingleStageDetector, images: Tensor) -> Forward:
    """The detector's raw outputs on preprocessed images (B, 3, H, W), in float32."""
    return from_stages(detector, detector.backbone(images))


def from_stages(detector: SingleStageDetector, stages: Sequence[Tensor]) -> Forward:
    """The same from the outputs of its backbone."""
    head: NanoDetPlusHead = detector.bbox_head
    fpn = detector.neck(stages)
    towers = head.towers(fpn)
    classes, boxes = head.outputs(towers)
    sizes = [tuple(level.shape[-2:]) for level in classes]
    anchors = head.prior_generator.grid_priors(sizes, device=fpn[0].device)
    counts = tuple(map(len, anchors))
    places = torch.cat(anchors)
    strides = [places.new_full((n,), s[0]) for n, s in zip(counts, head.prior_generator.strides, strict=True)]
    return Forward(
        flatten_levels(classes, head.cls_out_channels).float(),
        flatten_levels(boxes, 4 * (head.reg_max + 1)).float(),
        (places[:, :2] + places[:, 2:]) / 2,
        torch.cat(strides),
        counts,
        {"cls_tower": towers, "fpn": list(fpn)},
        float(head.prior_generator.octave_base_scale),
    )


def assign(head: NanoDetPlusHead, output: Forward, samples: Samples) -> Targets:
    """Targets by the dynamic soft label assigner."""
    return dsla.assign(head.num_classes, output, samples)
