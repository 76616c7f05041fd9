"""The data of a step: what it learns from, replays and is scored on; out of a table where there is one."""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from trainables.catalog import METHODS
from trainables.config import Runtime, TrialConfig
from trainables.datasets import steps
from trainables.datasets.detection import DetectionDataset
from trainables.datasets.image_table import ImageTable, StepDataset, TableDataset, write_images
from trainables.datasets.replay import Kept, ReplayDataset, buffer_at
from trainables.datasets.splits import Split
from trainables.pipelines import test_pipeline, train_pipeline
from trainables.recipes import Recipe
from trainables.store import Store
from trainables.table_plans import TABLE_VERSION, image_plan
from trainables.tables import with_facts


def training_data(config: TrialConfig, runtime: Runtime, step: int) -> StepDataset | ReplayDataset:
    """What `step` learns from."""
    current, kept = step_data(config, runtime, step, config.recipe), _replayed(config, runtime, step)
    if not kept:
        return current
    recipe = config.recipe.still if "latent_replay" in METHODS[config.method].parts else config.recipe
    by_step = {earlier: tuple(one.image_id for one in kept if one.step == earlier) for earlier in range(step)}
    buffer = {
        earlier: step_data(config, runtime, step, recipe, earlier, ids) for earlier, ids in by_step.items() if ids
    }
    return ReplayDataset(current, step, buffer)


def _replayed(config: TrialConfig, runtime: Runtime, step: int) -> list[Kept]:
    """The images of earlier steps that `step` replays."""
    if not step or not METHODS[config.method].replays:
        return []
    params, train = config.method_params, runtime.splits.train.coco
    return buffer_at(train, config.scenario.steps, step, params.buffer_size, params.policy, config.seed)


def replay_facts(config: TrialConfig, runtime: Runtime, step: int) -> dict[str, float]:
    """How many images a step replays, and their bytes as the buffer would hold them, decoded; nothing without any."""
    kept = {one.image_id for one in _replayed(config, runtime, step)}
    if not kept:
        return {}
    if "latent_replay" in METHODS[config.method].parts:
        return {"replay_images": float(len(kept))}
    images = [image for image in runtime.splits.train.coco["images"] if image["id"] in kept]
    sizes = [config.recipe.resized(image["height"], image["width"]) for image in images]
    return {"replay_images": float(len(kept)), "replay_bytes": float(sum(3 * h * w for h, w in sizes))}


def step_data(
    config: TrialConfig,
    runtime: Runtime,
    step: int,
    recipe: Recipe,
    of: int | None = None,
    image_ids: tuple[int, ...] | None = None,
) -> StepDataset:
    """The images of `step` itself by a recipe.

    Args:
        of: an earlier step, whose images with its labels are meant instead.
        image_ids: of which of its images.
    """
    split, seen = runtime.splits.train, config.scenario.seen(step)
    learnt = config.scenario.steps[step if of is None else of]
    return _training_data(split, seen, learnt, recipe, _image_table(split, recipe, runtime), image_ids)


def scored_data(config: TrialConfig, runtime: Runtime, step: int) -> tuple[StepDataset, steps.Coco]:
    """What `step` is scored on, and its annotations."""
    split = runtime.scored
    table = _image_table(split, config.recipe, runtime, training=False)
    return _scored_data(split, config.scenario.seen(step), config.recipe, table)


@lru_cache(maxsize=8)
def _training_data(
    split: Split,
    seen: tuple[str, ...],
    learnt: tuple[str, ...],
    recipe: Recipe,
    table: ImageTable | None,
    image_ids: tuple[int, ...] | None,
) -> StepDataset:
    coco = steps.training_set(split.coco, learnt)
    if image_ids is not None:
        coco = steps.subset(coco, set(image_ids))
    if table is None:
        return DetectionDataset(coco, split.images, seen, train_pipeline(recipe))
    return TableDataset(coco, split.images, seen, recipe, table, test_mode=False)


@lru_cache(maxsize=8)
def _scored_data(
    split: Split, seen: tuple[str, ...], recipe: Recipe, table: ImageTable | None
) -> tuple[StepDataset, steps.Coco]:
    truth = steps.evaluation_set(split.coco, seen)
    if table is None:
        return DetectionDataset(truth, split.images, seen, test_pipeline(recipe), test_mode=True), truth
    return TableDataset(truth, split.images, seen, recipe, table, test_mode=True), truth


def image_folder(split: Split, recipe: Recipe, runtime: Runtime, training: bool = True) -> Path | None:
    """The table of a split's images; None where none is kept."""
    if not image_plan(split, recipe, runtime, training).kept:
        return None
    build = with_facts(
        partial(write_images, split=split, recipe=recipe, workers=runtime.workers), len(split.coco["images"])
    )
    return Store(runtime.store).get("images", image_identity(split, recipe), build)


def image_identity(split: Split, recipe: Recipe) -> dict[str, Any]:
    """What a table of a split's images depends on."""
    sizes = {"scale": recipe.scale, "keep_ratio": recipe.keep_ratio}
    return {"version": TABLE_VERSION, "annotations": split.digest, **sizes}


def _image_table(split: Split, recipe: Recipe, runtime: Runtime, training: bool = True) -> ImageTable | None:
    """The images in that table, open; None where there is none."""
    folder = image_folder(split, recipe, runtime, training)
    return _opened(folder, folder.stat().st_ino) if folder else None


@lru_cache(maxsize=4)
def _opened(folder: Path, inode: int) -> ImageTable:
    # A folder that was damaged and built anew has another inode: what is mapped of the old one must not be used.
    return ImageTable(folder)
