"""GFL's forward pass, flattened, and its losses against ground truth on chosen class channels.

Source: generalized focal loss, arXiv 2006.04388; targets by mmdet's ATSS assigner. The restriction to channels follows
ERD (arXiv 2204.02136): old classes get no ground-truth gradient, not even as background.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.models import GFLHead, SingleStageDetector
from mmdet.structures.bbox import bbox_overlaps
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.detectors.forward import (
    Forward,
    Samples,
    Targets,
    boxes_around,
    expected_distances,
    flatten_levels,
)
from trainables.detectors.heads import GFLv2Head


def from_stages(detector: SingleStageDetector, stages: Sequence[Tensor]) -> Forward:
    """The detector's raw outputs, in float32, from those of its backbone."""
    head: GFLHead = detector.bbox_head
    fpn = detector.neck(stages)
    cls_tower, reg_tower = ([_through(convs, level) for level in fpn] for convs in (head.cls_convs, head.reg_convs))
    cls_scores = [head.gfl_cls(level) for level in cls_tower]
    bbox_preds = [scale(head.gfl_reg(level)).float() for level, scale in zip(reg_tower, head.scales, strict=True)]
    joint = None
    if isinstance(head, GFLv2Head):
        pairs = zip(cls_scores, bbox_preds, strict=True)
        joint = flatten_levels([head.joint_logits(*pair) for pair in pairs], head.cls_out_channels).float()
    features = {"cls_tower": cls_tower, "reg_tower": reg_tower, "fpn": fpn}
    return on_grid(head, cls_scores, bbox_preds, features, joint)


def on_grid(
    head: GFLHead,
    cls_scores: Sequence[Tensor],
    bbox_preds: Sequence[Tensor],
    features: Mapping[str, Sequence[Tensor]],
    joint: Tensor | None = None,
) -> Forward:
    """A forward pass from the logits of each level and where a head's locations are."""
    sizes = [tuple(level.shape[-2:]) for level in cls_scores]
    priors = head.prior_generator.grid_priors(sizes, device=cls_scores[0].device)
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
        features,
        float(head.prior_generator.octave_base_scale),
        joint,
    )


def _through(convs: Iterable[nn.Module], level: Tensor) -> Tensor:
    for conv in convs:
        level = conv(level)
    return level


def assign(head: GFLHead, samples: Samples, device: torch.device) -> Targets:
    """Targets by ATSS: per level the 9 nearest anchors, threshold mean + std of their IoUs (arXiv 1912.02424)."""
    metas = [sample.metainfo for sample in samples]
    sizes = [_grid(metas[0]["batch_input_shape"], stride) for stride in head.prior_generator.strides]
    anchors, valid = head.get_anchors(sizes, metas, device=device)
    present = [sample.gt_instances for sample in samples]
    result = head.get_targets(anchors, valid, present, metas)
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
    trained: Tensor,
    *,
    weights: tuple[float, float, float] = (1.0, 2.0, 0.25),
    beta: float = 2.0,
    normaliser: str = "clamped",
    average_eps: bool = True,
    negative_weight: float = 1.0,
) -> GFLTerms:
    """The GFL loss on the class channels that each image trains, location by location.

    Args:
        trained: (B, C), or (C,) for all alike: whether an image trains a class channel; its labels must be among them.
        weights: of the quality focal loss, the GIoU loss and the distribution focal loss.
        normaliser: of the box losses: `clamped`, max(sum of weights, 1), `shifted`, that sum + 1e-6, or `plain`, the
            sum itself, which makes 0/0 of an image without boxes.
        average_eps: add float32's epsilon to every other divisor, as mmdet 3 does.
        negative_weight: of the class loss of every channel that is not a location's own.

    Raises:
        ValueError: a label that its image does not train.
    """
    eps = torch.finfo(torch.float32).eps if average_eps else 0.0
    logits = output.score_logits
    trained = trained.expand(len(logits), -1)
    image, place = (targets.labels < targets.background).nonzero(as_tuple=True)
    _check_labels(targets.labels[image, place], trained[image])
    stride = output.strides[place]
    centers = output.centers[place] / stride[:, None]
    wanted = targets.boxes[image, place] / stride[:, None]
    pos_logits = output.box_logits[image, place]
    boxes = boxes_around(centers, expected_distances(pos_logits))
    certainty = logits.detach()[image, place].masked_fill(~trained[image], -torch.inf).sigmoid().amax(-1)

    quality = torch.zeros_like(targets.weights)
    quality[image, place] = bbox_overlaps(boxes.detach(), wanted, is_aligned=True)
    num_pos = max(_mean_over_ranks(targets.num_pos, logits.device), 1.0) + eps
    focal = quality_focal(logits, targets.labels, quality, beta, negative_weight) * trained[:, None]
    cls = focal.sum(-1) * targets.weights / num_pos

    scale = 1 / _box_normaliser(_mean_over_ranks(certainty.sum(), logits.device), normaliser)
    share = certainty * targets.weights[image, place]
    giou = (1 - bbox_overlaps(boxes, wanted, mode="giou", is_aligned=True)) * share
    reg_max = pos_logits.shape[-1] // 4 - 1
    distances = torch.cat([centers - wanted[:, :2], wanted[:, 2:] - centers], -1).clamp(0, reg_max - 0.1)
    dfl = distribution_focal(pos_logits.reshape(-1, reg_max + 1), distances.reshape(-1)).reshape(-1, 4).sum(-1)
    dfl = dfl * share / (4 + eps)
    anchor = output.box_logits.sum() * 0
    return GFLTerms(
        weights[0] * cls,
        _scatter(giou, image, place, quality) * (weights[1] * scale) + anchor,
        _scatter(dfl, image, place, quality) * (weights[2] * scale) + anchor,
    )


def _check_labels(labels: Tensor, trained: Tensor) -> None:
    outside = labels[~trained.gather(1, labels[:, None]).squeeze(1)]
    if len(outside):
        raise ValueError(f"labels {sorted(set(outside.tolist()))} are outside the channels that their images train")


def _box_normaliser(total: float, kind: str) -> float:
    if kind == "clamped":
        return max(total, 1.0)
    return total + 1e-6 if kind == "shifted" else total or float("nan")


def quality_focal(logits: Tensor, labels: Tensor, quality: Tensor, beta: float, negative_weight: float = 1.0) -> Tensor:
    """(..., C) the quality focal loss of each channel (arXiv 2006.04388, equation 7).

    Args:
        labels: (...), C for background.
        quality: (...) what the label's channel should say.
        negative_weight: of every channel but the label's.
    """
    own = F.one_hot(labels, logits.shape[-1] + 1)[..., :-1]
    aim = own * quality[..., None]
    scale = (aim - logits.sigmoid()).abs().pow(beta)
    rows = F.binary_cross_entropy_with_logits(logits, aim, reduction="none") * scale
    return rows if negative_weight == 1 else torch.where(own > 0, rows, negative_weight * rows)


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


def losses(output: Forward, targets: Targets, trained: Tensor, **how: Any) -> dict[str, Tensor]:
    """`loss_cls`, `loss_bbox`, `loss_dfl` of a batch and its positives per image; see `gfl_terms`."""
    terms = gfl_terms(output, targets, trained, **how)
    positives = (targets.labels < targets.background).sum() / len(targets.labels)
    return {"loss_cls": terms.cls.sum(), "loss_bbox": terms.bbox.sum(), "loss_dfl": terms.dfl.sum(), "n_pos": positives}
