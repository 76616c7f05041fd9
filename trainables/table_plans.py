"""Which tables trials will share, how large they are, and why one is not kept; known before anything is built.

Loads neither torch nor mmdet, so that a sweep can say it before it starts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.distributions import Scalar
from search_spaces.params import covers, floor, params_of
from trainables.catalog import DETECTORS, HEADS, METHODS, part_config, strides
from trainables.config import Runtime, TrialConfig
from trainables.datasets import steps
from trainables.datasets.splits import Split
from trainables.recipes import Recipe

TABLE_VERSION = 1
"""Counts the changes of this code that change what tables hold."""

LAST_STRIDE = 32  # of every backbone
POSITIVES_PER_OBJECT = 12  # a guess for sizes alone: ATSS takes 9 candidates a level and keeps some


@dataclass(frozen=True)
class TablePlan:
    """A table to be: its size in bytes, estimated, and the reason why it is not kept, or None."""

    num_bytes: int
    reason: str | None = None

    @property
    def kept(self) -> bool:
        """Whether there will be a table."""
        return self.reason is None


def image_plan(split: Split, recipe: Recipe, runtime: Runtime, training: bool = True) -> TablePlan:
    """The decoded, resized images of a split, as bytes.

    Args:
        training: whether they are learnt from, and not scored on.
    """
    if training and (reason := _augmented(recipe)):
        return TablePlan(0, reason)
    sizes = _sizes(split.coco["images"], recipe)
    return _within(runtime, 3 * sum(height * width * count for (height, width), count in sizes.items()))


def target_plan(config: TrialConfig, runtime: Runtime, step: int) -> TablePlan:
    """What each location of a step's training images should say."""
    if HEADS[DETECTORS[config.detector].head].by_prediction:
        return TablePlan(0, "the assigner looks at what the student predicts")
    if reason := _augmented(config.recipe):
        return TablePlan(0, reason)
    if step and (parts := METHODS[config.method].parts):
        return TablePlan(0, f"with {' and '.join(parts)} each trial has targets of its own")
    coco = steps.training_set(runtime.splits.train.coco, config.scenario.steps[step])
    rows = POSITIVES_PER_OBJECT * len(coco["annotations"]) * _flips(config.recipe)
    return _of_one_size(coco["images"], config.recipe, 24 * rows) or _within(runtime, 24 * rows)


def response_plan(config: TrialConfig, runtime: Runtime, step: int) -> TablePlan:
    """What the teacher of a step says about its training images, where any trial may listen."""
    taught_by = config.taught_by(step)
    assert taught_by is not None, f"{config.method} has a teacher"
    if METHODS[config.method].replays:
        return TablePlan(0, "with replay each trial asks about images of its own")
    if reason := _augmented(config.recipe):
        return TablePlan(0, reason)
    teacher, last = taught_by
    coco = steps.training_set(runtime.splits.train.coco, config.scenario.steps[step])
    try:
        share, row_bytes = _heard(config, runtime, len(teacher.scenario.seen(last)))
    except ValueError as error:
        return TablePlan(0, str(error))
    sizes = _sizes(coco["images"], config.recipe)
    locations = sum(count * sum(_levels(config, height, width)) for (height, width), count in sizes.items())
    num_bytes = math.ceil(locations * _flips(config.recipe) * share) * row_bytes
    return _of_one_size(coco["images"], config.recipe, num_bytes) or _within(runtime, num_bytes)


def latent_plan(config: TrialConfig, runtime: Runtime, step: int) -> TablePlan:
    """What the frozen backbone says of a step's training images; it is the base step's at every step."""
    if not (step and shares_backbone(config)):
        return TablePlan(0, "the backbone is trained")
    if reason := _augmented(config.recipe):
        return TablePlan(0, reason)
    coco = steps.training_set(runtime.splits.train.coco, config.scenario.steps[step])
    channels = part_config(config.detector, "neck")["in_channels"]
    sides = [LAST_STRIDE >> number for number in reversed(range(len(channels)))]
    numbers = sum(
        count * width * math.prod(math.ceil(side / stride) for side in padded)
        for size, count in _sizes(coco["images"], config.recipe).items()
        for padded in [_padded(config, *size)]
        for width, stride in zip(channels, sides, strict=True)
    )
    num_bytes = 4 * numbers * _flips(config.recipe)
    return _of_one_size(coco["images"], config.recipe, num_bytes) or _within(runtime, num_bytes)


def shares_backbone(config: TrialConfig) -> bool:
    """Whether the whole backbone stays as the base step left it."""
    params = config.method_params
    frozen, statistics = getattr(params, "frozen", "none"), getattr(params, "backbone_bn", "eval")
    return (frozen, statistics) == ("backbone", "eval")


def heard_features(config: TrialConfig) -> tuple[str, ...] | None:
    """The teacher's features that the method listens to everywhere; None where it listens here and there alone."""
    method = METHODS[config.method]
    if "pseudo_label" not in method.parts and any(param.keeps for param in params_of(method.params).values()):
        return None
    there = ("fpn", *HEADS[DETECTORS[config.detector].head].towers)
    return tuple(name for name in getattr(config.method_params, "features", ()) if name in there)


def _heard(config: TrialConfig, runtime: Runtime, classes: int) -> tuple[float, int]:
    """The share of locations that a trial may listen to, and the bytes of what a teacher of `classes` says there."""
    features, head = heard_features(config), part_config(config.detector)
    number = 2 if config.response_dtype == "float16" else 4
    logits = classes + (4 * (head["reg_max"] + 1) if "reg_max" in head else 5)
    if features is None:
        return _share(response_floor(config, runtime)), number * logits + 14  # and its place, its scores, its label
    if DETECTORS[config.detector].head == "gflv2":
        logits += classes  # together with quality
    return 1.0, number * (logits + len(features) * head["feat_channels"])  # FPN and towers are equally wide


def response_floor(config: TrialConfig, runtime: Runtime) -> dict[str, Scalar]:
    """The loosest values of the method's parameters that a table of responses is kept for; none where it has none.

    Raises:
        ValueError: no table can serve every trial.
    """
    cls = METHODS[config.method].params
    shared = runtime.floors.get(config.method)
    if shared and covers(cls, shared, config.params):
        return dict(shared)
    if shared is not None and not shared:
        raise ValueError("the search varies a parameter of which every value needs other responses")
    return floor(cls, {name: [value] for name, value in config.params.items()})


def _share(loosest: Mapping[str, Scalar]) -> float:
    """About how much of an image responds above the thresholds, if responses were normally distributed."""
    alphas = [float(loosest[name]) for name in ("alpha_cls", "alpha_box") if name in loosest]
    return min(1.0, sum(math.erfc(alpha / math.sqrt(2)) / 2 for alpha in alphas)) if alphas else 1.0


def _within(runtime: Runtime, num_bytes: int) -> TablePlan:
    budget = runtime.table_budget_gb
    if not budget:
        return TablePlan(num_bytes, "tables.budget_gb is 0")
    if num_bytes > budget * 1e9:
        return TablePlan(num_bytes, f"about {num_bytes / 1e9:.2g} GB are more than tables.budget_gb, {budget:g}")
    return TablePlan(num_bytes)


def _of_one_size(images: list[dict[str, Any]], recipe: Recipe, num_bytes: int) -> TablePlan | None:
    if (count := len(_sizes(images, recipe))) == 1:
        return None
    return TablePlan(
        num_bytes, f"the images have {count} sizes, so what is said of one depends on the batch that pads it"
    )


def _sizes(images: list[dict[str, Any]], recipe: Recipe) -> Counter[tuple[int, int]]:
    """How many images have which (height, width) after the resize."""
    return Counter(recipe.resized(image["height"], image["width"]) for image in images)


def _levels(config: TrialConfig, height: int, width: int) -> Iterator[int]:
    """The number of locations of each pyramid level."""
    padded = _padded(config, height, width)
    for stride in strides(part_config(config.detector)):
        yield math.prod(math.ceil(side / stride) for side in padded)


def _padded(config: TrialConfig, height: int, width: int) -> list[int]:
    divisor = config.recipe.pad_divisor
    return [math.ceil(side / divisor) * divisor for side in (height, width)]


def _augmented(recipe: Recipe) -> str | None:
    """Why an image is never seen twice as it was, or None."""
    return "the recipe draws sizes or colours anew for each image" if recipe.drawn_anew else None


def _flips(recipe: Recipe) -> int:
    return 2 if recipe.flip else 1
