"""GFL's forward pass, flattened, and its losses against ground truth on chosen class channels.

Source: generalized focal loss, arXiv 2006.04388; targets by mmdet's ATSS assigner. The restriction to channels follows
ERD (arXiv 2204.02136): old classes get no ground-truth gradient, not even as background.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.models import GFLHead, SingleStageDetector
from mmdet.structures.bbox import bbox_overlaps
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor
from torch.nn import functional as F

from trainables.detectors.forward import Forward, Samples, boxes_around, expected_distances, flatten_levels


def forward(detector: SingleStageDetector, images: Tensor) -> Forward:
    """The detector's raw outputs on preprocessed images (B, 3, H, W), in float32."""
    head: GFLHead = detector.bbox_head
    cls_scores, bbox_preds = head(detector.extract_feat(images))
    sizes = [tuple(level.shape[-2:]) for level in cls_scores]
    priors = head.prior_generator.grid_priors(sizes, device=images.device)
    counts = tuple(len(level) for level in priors)
    anchors = torch.cat(priors)
    strides = torch.cat(
        [anchors.new_full((n,), s[0]) for n, s in zip(counts, head.prior_generator.strides, strict=True)]
    )
    return Forward(
        flatten_levels(cls_scores, head.cls_out_channels).float(),
        flatten_levels(bbox_preds, 4 * (head.reg_max + 1)).float(),
        (anchors[:, :2] + anchors[:, 2:]) / 2,
        strides,
        counts,
    )


@dataclass(frozen=True)
class Targets:
    """What each location should say. Labels (B, N) are label ids, `background` where nothing is; `weights` (B, N) are
    0 where a location is padding or ignored; `boxes` (B, N, 4) in px count where a label is not background;
    `num_pos` is the sum over images of max(positives, 1)."""

    labels: Tensor
    weights: Tensor
    boxes: Tensor
    num_pos: float
    background: int


def assign(head: GFLHead, samples: Samples, device: torch.device) -> Targets:
    """Targets by ATSS: per level the 9 nearest anchors, threshold mean + std of their IoUs (arXiv 1912.02424)."""
    metas = [sample.metainfo for sample in samples]
    sizes = [_grid(metas[0]["batch_input_shape"], stride) for stride in head.prior_generator.strides]
    anchors, valid = head.get_anchors(sizes, metas, device=device)
    present = [sample.gt_instances for sample in samples]
    ignored = [sample.get("ignored_instances") for sample in samples]
    result = head.get_targets(anchors, valid, present, metas, ignored)
    _, labels, label_weights, boxes, _, num_pos = result
    return Targets(
        torch.cat(labels, 1), torch.cat(label_weights, 1), torch.cat(boxes, 1), float(num_pos), head.num_classes
    )


def _grid(shape: tuple[int, int], stride: tuple[int, int]) -> tuple[int, int]:
    return -(-shape[0] // stride[1]), -(-shape[1] // stride[0])


@dataclass(frozen=True)
class GFLTerms:
    """Each location's share (B, N) of the three losses, normalised and weighted; a loss is the sum of its terms."""

    cls: Tensor
    bbox: Tensor
    dfl: Tensor


def gfl_terms(
    output: Forward,
    targets: Targets,
    channels: Tensor,
    *,
    weights: tuple[float, float, float] = (1.0, 2.0, 0.25),
    beta: float = 2.0,
    clamp_normaliser: bool = True,
    average_eps: bool = True,
) -> GFLTerms:
    """The GFL loss on the class channels given, location by location.

    Args:
        channels: (C',) indices of the class channels that these images train; every target label must be among them.
        weights: of the quality focal loss, the GIoU loss and the distribution focal loss.
        clamp_normaliser: divide the box losses by max(sum of weights, 1); without it an image without boxes gives 0/0.
        average_eps: add float32's epsilon to every divisor, as mmdet 3 does.

    Raises:
        ValueError: a label outside `channels`.
    """
    eps = torch.finfo(torch.float32).eps if average_eps else 0.0
    labels = _local_labels(targets, channels)
    logits = output.cls_logits[..., channels]
    image, place = (labels < len(channels)).nonzero(as_tuple=True)
    stride = output.strides[place]
    centers = output.centers[place] / stride[:, None]
    wanted = targets.boxes[image, place] / stride[:, None]
    pos_logits = output.box_logits[image, place]
    boxes = boxes_around(centers, expected_distances(pos_logits))
    certainty = logits.detach().sigmoid().amax(-1)[image, place]

    quality = torch.zeros_like(targets.weights)
    quality[image, place] = bbox_overlaps(boxes.detach(), wanted, is_aligned=True)
    num_pos = max(_mean_over_ranks(targets.num_pos, logits.device), 1.0) + eps
    cls = _quality_focal(logits, labels, quality, beta) * targets.weights / num_pos

    total = _mean_over_ranks(certainty.sum(), logits.device)
    scale = 1 / max(total, 1.0) if clamp_normaliser else 1 / total if total else float("nan")
    giou = (1 - bbox_overlaps(boxes, wanted, mode="giou", is_aligned=True)) * certainty
    reg_max = pos_logits.shape[-1] // 4 - 1
    distances = torch.cat([centers - wanted[:, :2], wanted[:, 2:] - centers], -1).clamp(0, reg_max - 0.1)
    dfl = distribution_focal(pos_logits.reshape(-1, reg_max + 1), distances.reshape(-1)).reshape(-1, 4).sum(-1)
    dfl = dfl * certainty / (4 + eps)
    anchor = output.box_logits.sum() * 0
    return GFLTerms(
        weights[0] * cls,
        _scatter(giou, image, place, quality) * (weights[1] * scale) + anchor,
        _scatter(dfl, image, place, quality) * (weights[2] * scale) + anchor,
    )


def _local_labels(targets: Targets, channels: Tensor) -> Tensor:
    position = torch.full((targets.background + 1,), -1, dtype=torch.long, device=channels.device)
    position[channels] = torch.arange(len(channels), device=channels.device)
    position[targets.background] = len(channels)
    local = position[targets.labels]
    if (local < 0).any():
        outside = sorted(set(targets.labels[local < 0].tolist()))
        raise ValueError(f"labels {outside} are outside the trained channels {channels.tolist()}")
    return local


def _quality_focal(logits: Tensor, labels: Tensor, quality: Tensor, beta: float) -> Tensor:
    aim = F.one_hot(labels, logits.shape[-1] + 1)[..., :-1] * quality[..., None]
    scale = (aim - logits.sigmoid()).abs().pow(beta)
    return (F.binary_cross_entropy_with_logits(logits, aim, reduction="none") * scale).sum(-1)


def distribution_focal(logits: Tensor, distances: Tensor) -> Tensor:
    """Cross entropy (M,) of the two bins around each distance (M,), in stride units, shared by nearness."""
    low = distances.long()
    share = low + 1 - distances
    loss_low = F.cross_entropy(logits, low, reduction="none")
    loss_high = F.cross_entropy(logits, low + 1, reduction="none")
    return loss_low * share + loss_high * (1 - share)


def _scatter(values: Tensor, image: Tensor, place: Tensor, like: Tensor) -> Tensor:
    return torch.zeros_like(like).index_put((image, place), values)


def _mean_over_ranks(value: Tensor | float, device: torch.device) -> float:
    if get_world_size() == 1:
        return float(value)
    total = torch.as_tensor(value, dtype=torch.float32, device=device).clone()
    all_reduce(total)
    return float(total) / get_world_size()


Assigner = Callable[[Forward, Samples], Targets]


def losses(output: Forward, targets: Targets, channels: Tensor, **how: Any) -> dict[str, Tensor]:
    """`loss_cls`, `loss_bbox`, `loss_dfl` of a batch and its positives per image; see `gfl_terms`."""
    terms = gfl_terms(output, targets, channels, **how)
    positives = (targets.labels < targets.background).sum() / len(targets.labels)
    return {"loss_cls": terms.cls.sum(), "loss_bbox": terms.bbox.sum(), "loss_dfl": terms.dfl.sum(), "n_pos": positives}
