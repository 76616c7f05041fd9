"""mmdet's transforms for a recipe: from an image file to the detector's input."""

from __future__ import annotations

from typing import Any

from trainables.recipes import Recipe

META = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")


def train_pipeline(recipe: Recipe) -> list[dict[str, Any]]:
    """Load, resize in ratio, change colours, flip."""
    steps: list[dict[str, Any]] = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations", "with_bbox": True}]
    if recipe.train_scales:
        steps.append({"type": "RandomChoiceResize", "scales": list(recipe.train_scales), "keep_ratio": True})
    else:
        steps += _resize(recipe)
    if recipe.photometric:
        steps.append({"type": "PhotoMetricDistortion"})
    if recipe.flip:
        steps.append({"type": "RandomFlip", "prob": recipe.flip})
    return [*steps, {"type": "PackDetInputs", "meta_keys": META}]


def test_pipeline(recipe: Recipe) -> list[dict[str, Any]]:
    """Load, resize in ratio."""
    return [{"type": "LoadImageFromFile"}, *_resize(recipe), {"type": "PackDetInputs", "meta_keys": META}]


def _resize(recipe: Recipe) -> list[dict[str, Any]]:
    # Without a Resize there is no `scale_factor`, and mmdet could not map boxes back.
    how = {"scale": recipe.scale, "keep_ratio": True} if recipe.scale else {"scale_factor": 1.0}
    return [{"type": "Resize", **how}]
