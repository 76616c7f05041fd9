"""Building detectors, growing a classifier by the rows of new classes, and frozen teachers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import torch
from mmdet.models import BaseDetector
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from torch import Tensor, nn

from search_spaces.distributions import Scalar
from trainables.catalog import DETECTORS, HEADS, load
from trainables.checkpoints import read_checkpoint
from trainables.detectors.published import renamed
from trainables.errors import CheckpointError, capped, in_a_line
from trainables.files import is_web_address, written_whole
from trainables.recipes import Recipe

StateDict = dict[str, Tensor]
PRIOR_LOGIT = -math.log((1 - 0.01) / 0.01)


def build_detector(name: str, num_classes: int, recipe: Recipe, pretrained: str | None = None) -> BaseDetector:
    """An initialised mmdet detector of the catalogue with `num_classes` classes.

    Args:
        pretrained: path or URL of backbone weights, such as torchvision's; random weights without it.

    Raises:
        CheckpointError: the backbone weights cannot be read, or lack a tensor of the backbone.
    """
    entry = DETECTORS[name]
    detector = MODELS.build(ConfigDict(load(entry.target)(num_classes, recipe, **entry.options)))
    detector.init_weights()
    if pretrained:
        _load_backbone(detector, pretrained)
    return detector


def _load_backbone(detector: BaseDetector, origin: str) -> None:
    saved = _downloaded(origin) if is_web_address(origin) else read_checkpoint(Path(origin))
    found = renamed(named_tensors(saved, origin))
    tensors = {name.removeprefix("backbone."): tensor for name, tensor in found.items()}
    own = detector.backbone.state_dict()
    load_weights(detector.backbone, {name: tensors[name] for name in own if name in tensors}, origin)


def _downloaded(url: str) -> Any:
    path = Path(torch.hub.get_dir(), "checkpoints", PurePosixPath(urlsplit(url).path).name)
    if not path.exists():
        try:
            with written_whole(path) as aside:
                torch.hub.download_url_to_file(url, str(aside), progress=False)
        except (OSError, ValueError) as error:
            raise CheckpointError(url, [f"must be there, but: {in_a_line(error)}"]) from error
    return read_checkpoint(path)


def read_weights(path: Path) -> StateDict:
    """The tensors of a weights file.

    Raises:
        CheckpointError: not a file of tensors by name.
    """
    return named_tensors(read_checkpoint(path), str(path))


def named_tensors(saved: Any, origin: str) -> StateDict:
    """What a checkpoint holds under `state_dict`, or else itself.

    Raises:
        CheckpointError: not a dict whose keys are names.
    """
    found = saved.get("state_dict", saved) if isinstance(saved, dict) else None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise CheckpointError(origin, ["must be a checkpoint, a dict of tensors, but is something else"])
    return found


def grown(name: str, weights: StateDict, num_classes: int, new_row_init: str) -> StateDict:
    """`weights` with the classifier grown to `num_classes` rows: old rows copied, new rows initialised.

    Args:
        new_row_init: `focal_prior` (weight N(0, 0.01), bias of probability 0.01), `torch_default` (Conv2d's own) or
            `mean_old` (mean of the old rows).

    Raises:
        CheckpointError: the weights hold more classes than asked for.
    """
    larger, head = dict(weights), HEADS[DETECTORS[name].head]
    behind = head.rows_behind
    for prefix in head.classifiers:
        known, offset = weights[f"{prefix}.weight"], weights[f"{prefix}.bias"]
        weight, bias = known[: len(known) - behind], offset[: len(known) - behind]
        new = num_classes - len(weight)
        if new < 0:
            problem = f"weights hold {len(weight)} classes, more than the {num_classes} of this step"
            raise CheckpointError(name, [problem])
        rows, offsets = _new_rows(new_row_init, weight, bias, new)
        larger[f"{prefix}.weight"] = torch.cat([weight, rows, known[len(weight) :]])
        larger[f"{prefix}.bias"] = torch.cat([bias, offsets, offset[len(weight) :]])
    return larger


def _new_rows(new_row_init: str, weight: Tensor, bias: Tensor, new: int) -> tuple[Tensor, Tensor]:
    if new_row_init == "mean_old":
        return weight.mean(0, keepdim=True).repeat(new, 1, 1, 1), bias.mean().repeat(new)
    if new_row_init == "focal_prior":
        return torch.empty(new, *weight.shape[1:]).normal_(std=0.01), torch.full((new,), PRIOR_LOGIT)
    if not new:
        return weight[:0], bias[:0]
    height, width = weight.shape[2:]
    fresh = nn.Conv2d(weight.shape[1], new, (height, width)).state_dict()
    return fresh["weight"], fresh["bias"]


def load_weights(module: nn.Module, weights: StateDict, origin: str) -> None:
    """Put `weights` into `module`, every tensor of both sides matched.

    Raises:
        CheckpointError: missing, unexpected or misshapen tensors, all at once.
    """
    own = module.state_dict()
    problems = [f"tensor {key} is missing" for key in own if key not in weights]
    problems += [f"tensor {key} is not part of this detector" for key in weights if key not in own]
    problems += [
        f"tensor {key} must have shape {tuple(own[key].shape)}, but {_shape(weights[key])}"
        for key in own
        if key in weights and (not _is_plain(weights[key]) or own[key].shape != weights[key].shape)
    ]
    if problems:
        raise CheckpointError(origin, capped(problems, 10))
    module.load_state_dict(weights)


def _is_plain(value: Any) -> bool:
    """Whether a value of a checkpoint is a tensor of real numbers, all of them there."""
    if not isinstance(value, Tensor) or value.is_nested or value.layout is not torch.strided:
        return False
    return not (value.is_meta or value.is_quantized or value.is_complex())


def _shape(value: Any) -> str:
    return f"has {tuple(value.shape)}" if _is_plain(value) else f"is no plain tensor ({type(value).__name__})"


def set_nms(detector: BaseDetector, nms: Mapping[str, Scalar]) -> None:
    """Let `detector` test with `test_cfg.nms` changed so."""
    test_cfg = detector.bbox_head.test_cfg
    test_cfg.nms = ConfigDict({**test_cfg.nms, **nms})


def frozen(detector: BaseDetector) -> BaseDetector:
    """`detector` as a teacher: in eval mode, no parameter trains."""
    detector.requires_grad_(False)
    return detector.eval()
