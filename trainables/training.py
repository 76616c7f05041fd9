"""Training one step: its tables, its model, its plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmdet.models import BaseDetector
from torch import nn

from trainables import engine
from trainables.catalog import DETECTORS, METHODS, load
from trainables.checkpoints import read_checkpoint
from trainables.config import Runtime, TrialConfig
from trainables.detectors.forward import Completes
from trainables.detectors.growth import build_detector, frozen, grown, load_weights, read_weights
from trainables.distillation.pseudo_label import PseudoLabels
from trainables.distillation.teacher_boxes import TeacherBoxes
from trainables.errors import TrainingError
from trainables.hooks import AfterEpoch
from trainables.incremental import IncrementalDetector
from trainables.recipes import scaled_lr
from trainables.records import PROGRESS_FILE
from trainables.step_costs import Clock, costs, forget_peak_memory
from trainables.step_data import replay_facts, scored_data, training_data
from trainables.step_tables import StepTables

SUMS = ("images_seen", "time_gradient_s", "time_train_s")
"""Facts that add up over the parts of a step."""


def train_step(
    config: TrialConfig, runtime: Runtime, step: int, previous: Path | None, state: Path, after_epoch: AfterEpoch | None
) -> tuple[BaseDetector, dict[str, float]]:
    """The trained detector of `step`, and what it cost (seconds, images, losses by name).

    Args:
        previous: the weights of the step before or, of a scenario's only step, of what teaches it; else None.
        state: see `engine.fit`.
        after_epoch: called after every epoch but the last, by the first of several ranks.
    """
    forget_peak_memory()
    parts = _parts(config, step)
    done = _epochs_done(state) if len(parts) > 1 else 0
    spent: Counter[str] = Counter()
    for number, (part, stop) in enumerate(parts, start=1):
        if number < len(parts) and stop <= done:
            continue  # an earlier process, or the trial that this one goes on from, was here
        student, facts = _train_part(part, runtime, step, previous, state, after_epoch, stop)
        spent.update({name: facts[name] for name in SUMS})
    return student, facts | spent


def _parts(config: TrialConfig, step: int) -> list[tuple[TrialConfig, int]]:
    """The configurations under which a step's epochs are trained, one after the other, each with its last epoch."""
    if step < config.first_step:
        return [(config, config.base_epochs)]
    first = config.progress_at(step)
    return [
        (replace(config, params=one.params, optim=one.optim, schedule=()), one.until - first)
        for one in config.segments(first, first + config.epochs)
    ]


def _epochs_done(state: Path) -> int:
    return int(read_checkpoint(state)["epoch"]) if state.exists() else 0


def _train_part(
    config: TrialConfig,
    runtime: Runtime,
    step: int,
    previous: Path | None,
    state: Path,
    after_epoch: AfterEpoch | None,
    stop: int,
) -> tuple[BaseDetector, dict[str, float]]:
    with StepTables(config, runtime, step) as tables:
        model = build_model(config, step, previous, tables)
        dataset, plan = training_data(config, runtime, step), replace(step_plan(config, runtime, step), stop=stop)
        clock = Clock(plan.epochs, state.with_name(PROGRESS_FILE), after_epoch)
        try:
            facts = engine.fit(model, dataset, plan, state, clock)
        except TrainingError as error:
            raise TrainingError(f"step {step + 1}, {error.subject}", error.problems) from None
        own = {
            "images_train": float(len(dataset)),
            "images_eval": float(len(runtime.scored.coco["images"])),
            "lr_effective": plan.lr,
            "batch_total": float(plan.batch_size),
        }
        own |= replay_facts(config, runtime, step) | costs(model, previous, tables, facts["images_seen"])
        return model.student, facts | own | clock.facts


def build_step_tables(config: TrialConfig, runtime: Runtime, step: int, previous: Path | None) -> None:
    """Put the tables that training and scoring `step` will draw on into the store; `previous` as for `train_step`."""
    training_data(config, runtime, step)
    scored_data(config, runtime, step)
    with StepTables(config, runtime, step) as tables:
        build_model(config, step, previous, tables)


def build_model(config: TrialConfig, step: int, previous: Path | None, tables: StepTables) -> IncrementalDetector:
    """The detector of `step` with what it learns from."""
    taught_by = config.taught_by(step)
    old = torch.arange(len(taught_by[0].scenario.seen(taught_by[1])) if taught_by else 0)
    student = _student(config, step, previous if step else None)
    wrapped = partial(
        IncrementalDetector,
        student,
        labelled=_labelled(config, step),
        old=old,
        targets=tables.targets(student),
        response_dtype=config.response_dtype,
    )
    if step < config.first_step:
        return wrapped(frozen="backbone" if config.freeze_base else "none")
    method, params = METHODS[config.method], config.method_params
    scope = "full" if getattr(params, "loss_scope", "labelled") == "full" else "labelled"
    wrapped = partial(
        wrapped,
        scope=scope,
        frozen=getattr(params, "frozen", "none"),
        backbone_bn=getattr(params, "backbone_bn", "eval"),
        latents=tables.latents(student),
    )
    if not method.taught:
        return wrapped()
    assert taught_by is not None
    assert previous is not None
    ask = _teacher(taught_by[0], len(old), previous)
    responses = tables.responses(ask)
    return wrapped(
        teacher=None if responses else ask(),
        responses=responses,
        distiller=load(method.target)(params) if method.target else None,
        pseudo_labels=_completes(config, params, old),
        gt_options=_gt_options(params),
    )


def _completes(config: TrialConfig, params: Any, old: torch.Tensor) -> Completes | None:
    parts = METHODS[config.method].parts
    if "teacher_boxes" in parts:
        return TeacherBoxes(params, old)
    return PseudoLabels(params, old, config.recipe.nms_iou) if "pseudo_label" in parts else None


def _labelled(config: TrialConfig, step: int) -> torch.Tensor:
    """(steps, C) of which classes seen by `step` the images of each step carry boxes."""
    introduced = torch.tensor(config.scenario.class_step)[: len(config.scenario.seen(step))]
    return torch.arange(step + 1)[:, None] == introduced


def _gt_options(params: Any) -> dict[str, Any]:
    """The options of the detector's ground-truth losses that a method decides."""
    names = ("normaliser", "average_eps", "negative_weight")
    options = {name: getattr(params, name) for name in names if hasattr(params, name)}
    return options if getattr(params, "use_dfl", True) else options | {"weights": (1.0, 2.0, 0.0)}


def _student(config: TrialConfig, step: int, previous: Path | None) -> BaseDetector:
    engine.seed_everything(_seed(config, step))
    classes = len(config.scenario.seen(step))
    student = build_detector(config.detector, classes, config.recipe, None if previous else config.pretrained)
    if previous is not None:
        weights = grown(config.detector, read_weights(previous), classes, config.method_params.new_row_init)
        load_weights(student, weights, str(previous))
    if config.devices > 1 and config.device == "cuda":  # torch has none for a CPU
        student = nn.SyncBatchNorm.convert_sync_batchnorm(student)
    return on_device(student, config)


def _teacher(config: TrialConfig, classes: int, weights: Path) -> Callable[[], BaseDetector]:
    def build() -> BaseDetector:
        teacher = build_detector(config.detector, classes, config.recipe)
        load_weights(teacher, read_weights(weights), str(weights))
        return frozen(on_device(teacher, config))

    return build


def on_device(detector: BaseDetector, config: TrialConfig) -> BaseDetector:
    """`detector` where it runs, with its convolutions' channels last: a tenth faster on a CPU."""
    return detector.to(config.device, memory_format=torch.channels_last)


def step_plan(config: TrialConfig, runtime: Runtime, step: int) -> engine.Plan:
    """How `step` is trained: by the detector's recipe or, from the scenario's `first_step` on, by `optim`."""
    base = DETECTORS[config.detector].optim()
    own = step >= config.first_step
    optim = type(base)(**config.optim) if own else base
    rule = config.lr_rule if own else "linear"
    lr = scaled_lr(config.recipe, optim.lr_scale, config.batch_size, config.devices, rule)
    return engine.Plan(
        recipe=config.recipe,
        epochs=config.epochs if own else config.base_epochs,
        batch_size=config.batch_size * config.devices,
        lr=lr,
        weight_decay=optim.weight_decay,
        warmup_iters=optim.warmup_iters,
        seed=_seed(config, step),
        device=config.device,
        ema_momentum=config.ema_momentum,
        workers=runtime.workers,
        replay_ratio=getattr(config.method_params, "ratio", 0.0),
    )


def _seed(config: TrialConfig, step: int) -> int:
    seed = config.seed if step >= config.first_step else config.base_seed
    return (seed * 1000 + step) % 2**32  # what NumPy takes
