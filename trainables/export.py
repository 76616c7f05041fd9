"""A finished student as one file: its tensors and what is needed to use them. No teacher, no optimizer."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmdet.models import BaseDetector

from trainables.catalog import DETECTORS
from trainables.checkpoints import read_checkpoint
from trainables.config import TrialConfig
from trainables.detectors.growth import build_detector, load_weights, named_tensors, read_weights, set_nms
from trainables.detectors.published import renamed
from trainables.detectors.voting_nms import TYPE as VOTING
from trainables.environment import prepare_process
from trainables.errors import CheckpointError
from trainables.files import read_json, written_whole
from trainables.store_manifest import IDENTITY_FILE

CONSTANTS = {"nms": {"iou_threshold"}, VOTING: {"iou_threshold", "beta", "gate", "sigma"}}
"""What each type of non-maximum suppression takes."""
TEACHERS = ("teacher.", "ori_model.")  # how released checkpoints call what only training needs


def export(config: TrialConfig, weights: Path, folder: Path) -> Path:
    """The exported checkpoint of a chain's last student, named by the first 8 hex digits of its SHA-256.

    It loads with `torch.load(path, weights_only=True)`: `state_dict` of the bare mmdet detector, and `meta` with the
    class names in label order, detector, scenario steps, config_id and what preprocessing needs.

    Raises:
        CheckpointError: the weights cannot be read.
    """
    meta = _meta(config.detector, config.scenario.steps)
    meta |= {"scenario": config.scenario.name, "method": config.method, "config_id": config.config_id}
    meta |= {"nms": dict(config.nms)}
    return _written({"state_dict": read_weights(weights), "meta": meta}, folder)


def export_student(
    checkpoint: Path, folder: Path, detector: str | None = None, classes: Sequence[str] = ()
) -> tuple[Path, int]:
    """The student of any checkpoint in the form of `export`, without teacher, optimizer and training state, and how
    many numbers it holds.

    Args:
        checkpoint: the weights of a step in a store, or a file that holds `state_dict` and `meta` as `export` writes
            them or as mmdet or NanoDet publish them, with whatever else; parameters may be a student's beside its
            teacher's.
        detector: of the catalogue, where the file does not say.
        classes: in label order, where the file does not say.

    Raises:
        CheckpointError: not such a checkpoint, or not one of a detector that there is.
    """
    tensors, meta = _read(checkpoint)
    meta = meta or _stored_meta(checkpoint)
    if detector or "detector" not in meta:
        meta = _published_meta(checkpoint, meta | ({"classes": classes} if classes else {}), detector)
    weights = _student(tensors)
    _built(checkpoint, meta["detector"], meta.get("classes"), weights)
    return _written({"state_dict": weights, "meta": meta}, folder), sum(value.numel() for value in weights.values())


def _read(checkpoint: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tensors of a checkpoint by name, and what it says of itself."""
    saved = read_checkpoint(checkpoint)
    weights, meta = named_tensors(saved, str(checkpoint)), saved.get("meta", {})
    if not isinstance(meta, dict):
        raise CheckpointError(str(checkpoint), [f"`meta` must hold keys and values, but is {type(meta).__name__}"])
    return weights, meta


def _student(weights: dict[str, Any]) -> dict[str, Any]:
    """The tensors of the student, under the names that they have in the bare detector."""
    own = {name.removeprefix("student."): value for name, value in weights.items() if name.startswith("student.")}
    return own or renamed({name: value for name, value in weights.items() if not name.startswith(TEACHERS)})


def _published_meta(checkpoint: Path, given: dict[str, Any], detector: str | None) -> dict[str, Any]:
    """What mmdet's checkpoints say of themselves: the classes, not the detector."""
    inner = given.get("dataset_meta")
    told = given | (inner if isinstance(inner, dict) else {})
    classes = next((told[key] for key in ("classes", "CLASSES") if _are_names(told.get(key))), None)
    problems = []
    if detector is None:
        problems.append(f"does not say which detector it holds; --detector must: {', '.join(DETECTORS)}")
    elif detector not in DETECTORS:
        problems.append(f"holds no detector {detector!r}; available: {', '.join(DETECTORS)}")
    if classes is None:
        problems.append(
            "must hold its classes, in `meta.classes` or, as mmdet writes them, `meta.dataset_meta.classes`; or "
            "--classes must say them"
        )
    if detector is None or classes is None or problems:
        raise CheckpointError(str(checkpoint), [*problems, "what lies in a store needs neither"])
    return _meta(detector, [list(classes)])


def _stored_meta(checkpoint: Path) -> dict[str, Any]:
    """What the store's entry that the checkpoint lies in says of it."""
    file = checkpoint.parent / IDENTITY_FILE
    if not file.exists():
        return {}
    try:
        identity = read_json(file)
        return _meta(identity["detector"], identity["classes"])
    except (KeyError, TypeError) as error:
        problem = f"must say what the checkpoint beside it is, but cannot be read: {error!r}"
        raise CheckpointError(str(file), [problem]) from error


def _are_names(given: Any) -> bool:
    return isinstance(given, list | tuple) and bool(given) and all(isinstance(name, str) for name in given)


def _written(content: dict[str, Any], folder: Path) -> Path:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = buffer.getvalue()
    path = folder / f"{content['meta']['detector']}-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    with written_whole(path) as aside:
        aside.write_bytes(data)
    return path


def _meta(detector: str, steps: Sequence[Sequence[str]]) -> dict[str, Any]:
    recipe = DETECTORS[detector].recipe
    return {
        "detector": detector,
        "classes": [name for step in steps for name in step],
        "steps": [list(step) for step in steps],
        "mean": list(recipe.mean),
        "std": list(recipe.std),
        "scale": list(recipe.scale) if recipe.scale else None,
        "keep_ratio": recipe.keep_ratio,
        "pad_divisor": recipe.pad_divisor,
    }


def load_exported(path: Path) -> BaseDetector:
    """The detector of an exported checkpoint, in eval mode; `dataset_meta` has its `detector` and `classes`.

    Raises:
        CheckpointError: not an exported checkpoint, or not of this version's detectors.
    """
    weights, meta = _read(path)
    if not {"detector", "classes"} <= meta.keys():
        raise CheckpointError(str(path), ["must be an exported checkpoint; `sweeps export` makes one"])
    nms = meta.get("nms", {})
    if not _is_nms(nms):
        raise CheckpointError(
            str(path), ["`meta.nms` must be as `test_cfg.nms` of a sweep file, but is something else"]
        )
    detector = _built(path, meta["detector"], meta["classes"], weights)
    set_nms(detector, nms)
    return detector


def _is_nms(given: Any) -> bool:
    """Whether this is a suppression that we know: mmcv would evaluate any other type as Python."""
    if not isinstance(given, dict) or not isinstance(kind := given.get("type", "nms"), str) or kind not in CONSTANTS:
        return False
    constants = {name: value for name, value in given.items() if name != "type"}
    return constants.keys() <= CONSTANTS[kind] and all(type(value) in (int, float) for value in constants.values())


def _built(path: Path, name: Any, classes: Any, weights: dict[str, Any]) -> BaseDetector:
    if not isinstance(name, str) or name not in DETECTORS:
        raise CheckpointError(str(path), [f"holds detector {name!r}; available: {', '.join(DETECTORS)}"])
    if not _are_names(classes):
        raise CheckpointError(str(path), ["`meta.classes` must be a list of names, but is something else"])
    prepare_process()
    detector = build_detector(name, len(classes), DETECTORS[name].recipe)
    load_weights(detector, weights, str(path))
    detector.dataset_meta = {"detector": name, "classes": tuple(classes)}
    return detector.eval()
