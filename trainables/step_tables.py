"""The tables that a step draws on, from the store or built now: images, assigned targets, responses, latents.

Each has a plan that says whether it is kept (`table_plans`); what is not kept is loaded, assigned or asked live.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
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
from trainables.datasets.image_table import StepDataset, in_order, stacked
from trainables.datasets.replay import ReplayDataset
from trainables.detectors.families import family_of
from trainables.detectors.forward import Forward, Samples
from trainables.detectors.target_table import TargetTable, write_targets
from trainables.engine import autocast
from trainables.files import read_json
from trainables.forward_table import ForwardTable, write_forwards
from trainables.latents import LatentBuffer, Latents, LatentTable, Stages, write_latents
from trainables.records import FACTS_FILE
from trainables.responses import TableTeacher, write_responses
from trainables.step_data import image_folder, image_identity, step_data, training_data
from trainables.store import Store
from trainables.table_plans import heard_features, latent_plan, response_floor, response_plan, target_plan
from trainables.tables import with_facts


@dataclass(frozen=True)
class TableFacts:
    """Of the tables of a step: their bytes, and the seconds that an image costs without each of them."""

    num_bytes: int
    seconds_per_image: Mapping[str, float]


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
            found.append(LatentBuffer(self._stages(student, batches), config.method_params.dtype))
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
            **image_identity(split, config.recipe),
            "learnt": config.scenario.steps[step],
            "flip": bool(config.recipe.flip),
            "pad_divisor": config.recipe.pad_divisor,
            "device": config.device,
            **own,
        }
        whole = with_facts(build, len(self._data) * (2 if config.recipe.flip else 1))
        if kind == "responses" and step > config.first_step:  # the teacher is this trial's own
            folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="palimpsest-responses-")))
            whole(folder)
            return folder
        return Store(self._runtime.store).get(kind, identity, whole)

    @property
    def _data(self) -> StepDataset:
        return step_data(self._config, self._runtime, self._step, self._config.recipe)

    def _batches(self, detector: BaseDetector) -> Iterator[tuple[Tensor, Samples]]:
        """Every training image, preprocessed, as it is and then, where the recipe flips, flipped."""
        config, runtime = self._config, self._runtime
        for flip in (0.0, 1.0) if config.recipe.flip else (0.0,):
            still = replace(config.recipe, flip=flip)
            yield from self._preprocessed(detector, step_data(config, runtime, self._step, still))

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
        full = min(self._config.batch_size, len(self._data))
        for images, samples in batches:
            # A batch of another size may be computed in another order, which changes the last bits.
            padded = F.pad(images, (0, 0, 0, 0, 0, 0, 0, max(full - len(images), 0)))
            with autocast(self._config.device):
                yield samples, what(padded)
