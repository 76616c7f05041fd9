"""The tables that a step draws on, from the store or built now: images, assigned targets, responses, latents.

Each has a plan that says whether it is kept (`table_plans`); what is not kept is loaded, assigned or asked live.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from mmdet.models import BaseDetector
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset, Subset

from trainables.catalog import METHODS
from trainables.config import Runtime, TrialConfig
from trainables.datasets import steps
from trainables.datasets.detection import DetectionDataset
from trainables.datasets.image_table import ImageTable, StepDataset, TableDataset, in_order, stacked, write_images
from trainables.datasets.replay import Kept, ReplayDataset, buffer_at
from trainables.datasets.splits import Split
from trainables.detectors.families import family_of
from trainables.detectors.forward import Forward, Samples
from trainables.detectors.target_table import TargetTable, write_targets
from trainables.engine import autocast
from trainables.files import read_json, write_json
from trainables.forward_table import ForwardTable, write_forwards
from trainables.latents import LatentBuffer, Latents, LatentTable, Stages, write_latents
from trainables.pipelines import test_pipeline, train_pipeline
from trainables.recipes import Recipe
from trainables.records import FACTS_FILE
from trainables.responses import TableTeacher, write_responses
from trainables.store import Store
from trainables.table_plans import (
    TABLE_VERSION,
    heard_features,
    image_plan,
    latent_plan,
    response_floor,
    response_plan,
    target_plan,
)


@dataclass(frozen=True)
class TableFacts:
    """Of the tables of a step: their bytes, and the seconds that an image costs without each of them."""

    num_bytes: int
    seconds_per_image: Mapping[str, float]


def training_data(config: TrialConfig, runtime: Runtime, step: int) -> StepDataset | ReplayDataset:
    """What `step` learns from."""
    current, kept = step_data(config, runtime, step), replayed(config, runtime, step)
    if not kept:
        return current
    recipe = config.recipe.still if "latent_replay" in METHODS[config.method].parts else config.recipe
    by_step = {earlier: tuple(one.image_id for one in kept if one.step == earlier) for earlier in range(step)}
    buffer = {
        earlier: _step_data(config, runtime, step, earlier, recipe, ids) for earlier, ids in by_step.items() if ids
    }
    return ReplayDataset(current, step, buffer)


def replayed(config: TrialConfig, runtime: Runtime, step: int) -> list[Kept]:
    """The images of earlier steps that `step` replays."""
    if not step or not METHODS[config.method].replays:
        return []
    size, policy = int(config.params["buffer_size"]), str(config.params["policy"])
    return buffer_at(runtime.splits.train.coco, config.scenario.steps, step, size, policy, config.seed)


def replay_facts(config: TrialConfig, runtime: Runtime, step: int) -> dict[str, float]:
    """How many images a step replays, and their bytes as the buffer would hold them, decoded; nothing without any."""
    kept = {one.image_id for one in replayed(config, runtime, step)}
    if not kept:
        return {}
    if "latent_replay" in METHODS[config.method].parts:
        return {"replay_images": float(len(kept))}
    images = [image for image in runtime.splits.train.coco["images"] if image["id"] in kept]
    sizes = [config.recipe.resized(image["height"], image["width"]) for image in images]
    return {"replay_images": float(len(kept)), "replay_bytes": float(sum(3 * h * w for h, w in sizes))}


def step_data(config: TrialConfig, runtime: Runtime, step: int) -> StepDataset:
    """The images of `step` itself."""
    return _step_data(config, runtime, step, step, config.recipe)


def _step_data(
    config: TrialConfig, runtime: Runtime, step: int, of: int, recipe: Recipe, image_ids: tuple[int, ...] | None = None
) -> StepDataset:
    """At `step` the images of the step `of`, with its labels; of them those with `image_ids`."""
    split, seen, learnt = runtime.splits.train, config.scenario.seen(step), config.scenario.steps[of]
    return _training_data(split, seen, learnt, recipe, image_table(split, recipe, runtime), image_ids)


def scored_data(config: TrialConfig, runtime: Runtime, step: int) -> tuple[StepDataset, steps.Coco]:
    """What `step` is scored on, and its annotations."""
    split = runtime.scored
    return _scored_data(
        split, config.scenario.seen(step), config.recipe, image_table(split, config.recipe, runtime, training=False)
    )


@lru_cache(maxsize=8)
def _training_data(
    split: Split,
    seen: tuple[str, ...],
    learnt: tuple[str, ...],
    recipe: Recipe,
    table: ImageTable | None,
    image_ids: tuple[int, ...] | None = None,
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
    identity = {
        "version": TABLE_VERSION,
        "annotations": split.digest,
        "scale": recipe.scale,
        "keep_ratio": recipe.keep_ratio,
    }

    def build(folder: Path) -> None:
        write_images(folder, split, recipe, runtime.workers)

    return Store(runtime.store).get("images", identity, _timed(build, len(split.coco["images"])))


def image_table(split: Split, recipe: Recipe, runtime: Runtime, training: bool = True) -> ImageTable | None:
    """The images in that table, open; None where there is none."""
    folder = image_folder(split, recipe, runtime, training)
    return _opened(folder, folder.stat().st_ino) if folder else None


@lru_cache(maxsize=4)
def _opened(folder: Path, inode: int) -> ImageTable:
    # A folder that was damaged and built anew has another inode: what is mapped of the old one must not be used.
    return ImageTable(folder)


class StepTables:
    """The tables of one step, open. Used as a context: what nobody else can use goes at its end."""

    def __init__(self, config: TrialConfig, runtime: Runtime, step: int) -> None:
        self._config, self._runtime, self._step = config, runtime, step
        self._folders: dict[str, Path] = {}
        self._stack = ExitStack()

    def __enter__(self) -> StepTables:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def facts(self) -> TableFacts:
        """What the tables in use hold and save."""
        split = self._runtime.splits.train
        images = image_folder(split, self._config.recipe, self._runtime)
        folders = self._folders | ({"images": images} if images else {})
        facts = {kind: read_json(folder / FACTS_FILE) for kind, folder in folders.items()}
        return TableFacts(
            sum(fact["num_bytes"] for fact in facts.values()),
            {kind: fact["build_s"] / fact["images"] for kind, fact in facts.items()},
        )

    def targets(self, student: BaseDetector) -> TargetTable | None:
        """The assigned targets; None where none are kept."""
        if not target_plan(self._config, self._runtime, self._step).kept:
            return None

        def build(folder: Path) -> None:
            write_targets(folder, student.bbox_head, self._batches(student))

        own = {"detector": self._config.detector, "seen": self._config.scenario.seen(self._step)}
        self._folders["targets"] = self._shared("targets", own, build)
        return TargetTable(self._folders["targets"], student.bbox_head.num_classes)

    def responses(self, teacher: Callable[[], BaseDetector]) -> TableTeacher | ForwardTable | None:
        """What `teacher()` says of the training images; None where it is to be asked live."""
        config, runtime = self._config, self._runtime
        if not response_plan(config, runtime, self._step).kept:
            return None
        if (features := heard_features(config)) is not None:
            return self._forwards(teacher, features)
        params, floor = config.method_params, response_floor(config, runtime)

        def build(folder: Path) -> None:
            write_responses(folder, self._said(teacher()), replace(params, **floor), config.response_dtype)

        own = {"teacher": self._teacher_identity, "floor": floor, "dtype": config.response_dtype}
        self._folders["responses"] = self._shared("responses", own, build)
        return TableTeacher(self._folders["responses"], params, config.device)

    def _forwards(self, teacher: Callable[[], BaseDetector], features: tuple[str, ...]) -> ForwardTable:
        config = self._config

        def build(folder: Path) -> None:
            write_forwards(folder, self._said(teacher()), features, config.response_dtype)

        own = {"teacher": self._teacher_identity, "all": features, "dtype": config.response_dtype}
        self._folders["responses"] = self._shared("responses", own, build)
        return ForwardTable(self._folders["responses"], features, config.device)

    def latents(self, student: BaseDetector) -> list[Latents]:
        """What the student's frozen backbone says of replayed images, and of the step's own where there is a table."""
        config, runtime, step = self._config, self._runtime, self._step
        found: list[Latents] = []
        data = training_data(config, runtime, step)
        if "latent_replay" in METHODS[config.method].parts and isinstance(data, ReplayDataset):
            replayed = Subset(data, range(len(data.current), len(data)))
            batches = self._preprocessed(student, replayed)
            found.append(LatentBuffer(self._stages(student, batches), str(config.params["dtype"])))
        if latent_plan(config, runtime, step).kept:

            def build(folder: Path) -> None:
                write_latents(folder, self._stages(student, self._batches(student)))

            own = {"backbone": config.step_identity(config.first_step - 1)}
            self._folders["latents"] = self._shared("latents", own, build)
            found.append(LatentTable(self._folders["latents"], config.device))
        return found

    @property
    def _teacher_identity(self) -> dict[str, Any]:
        taught_by = self._config.taught_by(self._step)
        assert taught_by, "who has responses has a teacher"
        return taught_by[0].step_identity(taught_by[1])

    def _shared(self, kind: str, own: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
        config, step = self._config, self._step
        split = self._runtime.splits.train
        identity = {
            "version": TABLE_VERSION,
            "annotations": split.digest,
            "learnt": config.scenario.steps[step],
            "scale": config.recipe.scale,
            "keep_ratio": config.recipe.keep_ratio,
            "flip": bool(config.recipe.flip),
            "pad_divisor": config.recipe.pad_divisor,
            "device": config.device,
            **own,
        }
        timed = _timed(build, len(step_data(config, self._runtime, step)) * (2 if config.recipe.flip else 1))
        if kind == "responses" and step > config.first_step:  # the teacher is this trial's own
            folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="palimpsest-responses-")))
            timed(folder)
            return folder
        return Store(self._runtime.store).get(kind, identity, timed)

    def _batches(self, detector: BaseDetector) -> Iterator[tuple[Tensor, Samples]]:
        """Every training image, preprocessed, as it is and then, where the recipe flips, flipped."""
        config, runtime = self._config, self._runtime
        for flip in (0.0, 1.0) if config.recipe.flip else (0.0,):
            still = replace(config.recipe, flip=flip)
            split, scenario = runtime.splits.train, config.scenario
            table = image_table(split, config.recipe, runtime)
            dataset = _training_data(split, scenario.seen(self._step), scenario.steps[self._step], still, table)
            yield from self._preprocessed(detector, dataset)

    def _preprocessed(self, detector: BaseDetector, dataset: Dataset[Any]) -> Iterator[tuple[Tensor, Samples]]:
        for batch in in_order(dataset, self._config.batch_size, self._runtime.workers, stacked):
            data = detector.data_preprocessor(batch, True)
            yield data["inputs"], data["data_samples"]

    def _said(self, teacher: BaseDetector) -> Iterator[tuple[Samples, Forward]]:
        family = family_of(teacher)
        for samples, output in self._asked(partial(family.forward, teacher), self._batches(teacher)):
            yield samples, output.first(len(samples))

    def _stages(
        self, student: BaseDetector, batches: Iterable[tuple[Tensor, Samples]]
    ) -> Iterator[tuple[Samples, Stages]]:
        student.backbone.eval()
        for samples, stages in self._asked(student.backbone, batches):
            yield samples, [stage[: len(samples)] for stage in stages]

    @torch.no_grad()
    def _asked(
        self, what: Callable[[Tensor], Any], batches: Iterable[tuple[Tensor, Samples]]
    ) -> Iterator[tuple[Samples, Any]]:
        full = min(self._config.batch_size, len(step_data(self._config, self._runtime, self._step)))
        for images, samples in batches:
            # A batch of another size may be computed in another order, which changes the last bits.
            padded = F.pad(images, (0, 0, 0, 0, 0, 0, 0, max(full - len(images), 0)))
            with autocast(self._config.device):
                yield samples, what(padded)


def _timed(build: Callable[[Path], None], images: int) -> Callable[[Path], None]:
    def timed(folder: Path) -> None:
        begin = time.perf_counter()
        build(folder)
        num_bytes = sum(path.stat().st_size for path in folder.iterdir())
        seconds = time.perf_counter() - begin
        write_json(folder / FACTS_FILE, {"build_s": seconds, "images": images, "num_bytes": num_bytes})

    return timed
