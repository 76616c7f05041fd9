"""A finished student as one file: its tensors and what is needed to use them. No teacher, no optimizer."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from trainables.config import TrialConfig
from trainables.errors import CheckpointError
from trainables.files import written_whole
from trainables.training import read_weights


def export(config: TrialConfig, weights: Path, folder: Path) -> Path:
    """The exported checkpoint of a chain's last student, named by the first 8 hex digits of its SHA-256.

    It loads with `torch.load(path, weights_only=True)`: `state_dict` of the bare mmdet detector, and `meta` with the
    class names in label order, detector, scenario steps, config_id and what preprocessing needs.

    Raises:
        CheckpointError: the weights cannot be read.
    """
    buffer = io.BytesIO()
    torch.save({"state_dict": read_weights(weights), "meta": _meta(config)}, buffer)
    content = buffer.getvalue()
    path = folder / f"{config.detector}-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    with written_whole(path) as aside:
        aside.write_bytes(content)
    return path


def _meta(config: TrialConfig) -> dict[str, Any]:
    recipe = config.recipe
    return {
        "detector": config.detector,
        "classes": list(config.scenario.class_names),
        "steps": [list(step) for step in config.scenario.steps],
        "scenario": config.scenario.name,
        "method": config.method,
        "config_id": config.config_id,
        "mean": list(recipe.mean),
        "std": list(recipe.std),
        "scale": list(recipe.scale) if recipe.scale else None,
        "pad_divisor": recipe.pad_divisor,
    }


def load_exported(path: Path) -> Any:
    """The detector of an exported checkpoint, in eval mode, with `classes` in `dataset_meta`.

    Raises:
        CheckpointError: not an exported checkpoint, or not of this version's detectors.
    """
    from trainables.catalog import DETECTORS
    from trainables.detectors.growth import build_detector, load_weights
    from trainables.environment import prepare_process

    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        meta, weights = saved["meta"], saved["state_dict"]
        name, classes = meta["detector"], meta["classes"]
    except Exception as error:
        raise CheckpointError(
            str(path), [f"must be an exported checkpoint, but cannot be read as one: {error}"]
        ) from error
    if name not in DETECTORS:
        raise CheckpointError(str(path), [f"holds detector {name!r}; available: {', '.join(DETECTORS)}"])
    prepare_process(torch.get_num_threads())
    detector = build_detector(name, len(classes), DETECTORS[name].recipe)
    load_weights(detector, weights, str(path))
    detector.dataset_meta = {"classes": tuple(classes)}
    return detector.eval()
