"""One step of a chain: trained and scored, each result kept in the store."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmdet.models import BaseDetector

from trainables.config import Runtime, TrialConfig
from trainables.datasets import steps
from trainables.datasets.voc import is_voc
from trainables.detectors.growth import build_detector, load_weights, read_weights, set_nms
from trainables.errors import CheckpointError
from trainables.evaluation import evaluate
from trainables.export import load_exported
from trainables.files import read_json, write_json
from trainables.hooks import AfterEpoch
from trainables.metrics import KINDS
from trainables.pictures import write_picture
from trainables.prediction import predict
from trainables.ranks import announce
from trainables.records import AP_FILE, FACTS_FILE, STATE_FILE, WEIGHTS_FILE, ClassAP, partial_step, score_identity
from trainables.step_data import scored_data
from trainables.store import Store
from trainables.training import on_device, train_step
from trainables.voc_evaluation import columns as voc_columns


@dataclass(frozen=True)
class StepResult:
    """The end of one step: `weights` is a file, `facts` what it cost (seconds, images, losses by name)."""

    step: int
    weights: Path
    ap: ClassAP
    facts: dict[str, float]


def run_step(
    config: TrialConfig, runtime: Runtime, step: int, previous: StepResult | None, after_epoch: AfterEpoch | None = None
) -> StepResult:
    """The result of `step`, from the store or trained now.

    Args:
        previous: the step before, None for the base step.
        after_epoch: called while training; see `AfterEpoch`.
    """
    known = True

    def build(folder: Path) -> None:
        nonlocal known
        known = False
        if config.checkpoint:
            student, facts = from_checkpoint(config)
        else:
            state = partial_step(config, runtime, step) / STATE_FILE
            before = previous.weights if previous else teacher_weights(config, runtime)
            announce(train_step, config, runtime, step, before, state, None)
            student, facts = train_step(config, runtime, step, before, state, after_epoch)
        with (folder / WEIGHTS_FILE).open("wb") as file:
            torch.save(student.state_dict(), file)
        write_json(folder / FACTS_FILE, facts)

    folder = Store(runtime.store).get("steps", config.step_identity(step), build)
    weights, facts = folder / WEIGHTS_FILE, read_json(folder / FACTS_FILE)
    if known:
        facts = _saved(facts)
    begin = time.perf_counter()
    ap = score(config, runtime, step, weights)
    held = 4 * facts.get("params_teacher", 0.0) + facts.get("replay_bytes", 0.0)
    facts |= {"time_eval_s": time.perf_counter() - begin, "extra_memory_mb": held / 1e6}
    return StepResult(step, weights, ap, facts)


def teacher_weights(config: TrialConfig, runtime: Runtime) -> Path | None:
    """The weights of what teaches the only step of a scenario; None where nothing does."""
    return run_step(config.teacher, runtime, 0, None).weights if config.teacher else None


def from_checkpoint(config: TrialConfig) -> tuple[BaseDetector, dict[str, float]]:
    """The detector of an exported checkpoint in place of a trained one.

    Raises:
        CheckpointError: not an exported checkpoint, or of another detector or other classes.
    """
    path, classes = Path(config.checkpoint or ""), config.scenario.class_names
    detector = load_exported(path)
    name, given = (detector.dataset_meta[key] for key in ("detector", "classes"))
    problems = []
    if name != config.detector:
        problems.append(f"must hold detector {config.detector}, but holds {name}")
    if given != classes:
        problems.append(f"must know the classes {', '.join(classes)}, in this order, but knows {', '.join(given)}")
    if problems:
        raise CheckpointError(str(path), problems)
    size = float(sum(parameter.numel() for parameter in detector.parameters()))
    return detector, {"time_train_s": 0.0, "time_gradient_s": 0.0, "images_seen": 0.0, "params_total": size}


def _saved(facts: dict[str, float]) -> dict[str, float]:
    """The facts of a step that was there already: its seconds are saved, and nothing else is spent or saved."""
    kept = {name: value for name, value in facts.items() if not name.startswith("time_")}
    return kept | {"time_saved_steps_s": facts["time_train_s"], "time_train_s": 0.0, "time_gradient_s": 0.0}


def score(config: TrialConfig, runtime: Runtime, step: int, weights: Path) -> ClassAP:
    """AP of every class seen by `step` on the runtime's split, from the store or evaluated now."""

    def build(folder: Path) -> None:
        detector = build_detector(config.detector, len(config.scenario.seen(step)), config.recipe)
        load_weights(detector, read_weights(weights), str(weights))
        found = _detected(on_device(detector, config), config, runtime, step)
        ap = _class_ap(found)
        if is_voc(found.truth):
            ap |= voc_columns(*found)
        write_json(folder / AP_FILE, _without_nan(ap))
        write_picture(folder, found.truth, found.detections, config, runtime, step)

    ap: ClassAP = read_json(Store(runtime.store).get("scores", score_identity(config, runtime, step), build) / AP_FILE)
    return ap


class _Detected(NamedTuple):
    """What there is and what was found on all images, for the classes with `category_ids`, in label order."""

    truth: steps.Coco
    detections: list[dict[str, Any]]
    category_ids: list[int]


def class_ap(detector: BaseDetector, config: TrialConfig, runtime: Runtime, step: int) -> ClassAP:
    """AP of `detector` on every image of the runtime's split, for the classes seen by `step`."""
    return _without_nan(_class_ap(_detected(detector, config, runtime, step)))


def _detected(detector: BaseDetector, config: TrialConfig, runtime: Runtime, step: int) -> _Detected:
    set_nms(detector, config.nms)
    dataset, truth = scored_data(config, runtime, step)
    category_ids = steps.category_ids(truth, config.scenario.seen(step))
    return _Detected(truth, predict(detector, dataset, category_ids, config.batch_size, runtime.workers), category_ids)


def _class_ap(found: _Detected) -> dict[str, list[float]]:
    result = evaluate(*found).per_class
    return {kind: result[kind].tolist() for kind in KINDS}


def _without_nan(table: Mapping[str, list[float]]) -> ClassAP:
    return {kind: [None if value != value else value for value in values] for kind, values in table.items()}
