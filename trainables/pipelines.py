"""mmdet's transforms for a recipe: from an image file to the detector's input."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from trainables.recipes import Recipe

META = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")


def train_pipeline(recipe: Recipe) -> list[dict[str, Any]]:
    """Load, resize, zoom and shift, change colours, flip."""
    steps: list[dict[str, Any]] = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations", "with_bbox": True}]
    if recipe.train_scales:
        steps.append({"type": "RandomChoiceResize", "scales": list(recipe.train_scales), "keep_ratio": True})
    else:
        steps += _resize(recipe)
    if recipe.affine:
        steps.append({"type": "trainables.datasets.transforms.CenteredAffine", **asdict(recipe.affine)})
    if (colours := recipe.photometric) is not None:
        steps.append({
            "type": "PhotoMetricDistortion", "brightness_delta": colours.brightness, "contrast_range": colours.contrast,
            "saturation_range": colours.saturation, "hue_delta": colours.hue,
        })  # fmt: skip
    if recipe.flip:
        steps.append({"type": "RandomFlip", "prob": recipe.flip})
    return [*steps, {"type": "PackDetInputs", "meta_keys": META}]


def test_pipeline(recipe: Recipe) -> list[dict[str, Any]]:
    """Load, resize."""
    return [{"type": "LoadImageFromFile"}, *_resize(recipe), {"type": "PackDetInputs", "meta_keys": META}]


def _resize(recipe: Recipe) -> list[dict[str, Any]]:
    # Without a Resize there is no `scale_factor`, and mmdet could not map boxes back.
    how = {"scale": recipe.scale, "keep_ratio": recipe.keep_ratio} if recipe.scale else {"scale_factor": 1.0}
    return [{"type": "Resize", **how}]
