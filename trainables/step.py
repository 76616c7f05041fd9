"""One step of a chain: its data, its model, its training and its score, each result kept in the store."""

from __future__ import annotations

import json
import resource
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from mmdet.models import BaseDetector

from trainables import engine
from trainables.catalog import DETECTORS, METHODS, load
from trainables.config import Runtime, TrialConfig
from trainables.datasets import steps
from trainables.datasets.detection import DetectionDataset
from trainables.detectors.growth import StateDict, build_detector, frozen, grown, load_weights
from trainables.errors import CheckpointError, TrainingError
from trainables.evaluation import evaluate
from trainables.files import write_json
from trainables.hooks import AfterEpoch
from trainables.incremental import IncrementalDetector
from trainables.metrics import KINDS
from trainables.pipelines import test_pipeline, train_pipeline
from trainables.prediction import predict
from trainables.records import ClassAP, score_identity
from trainables.store import PROGRESS_FILE, Store


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
    store, identity = Store(runtime.store), config.step_identity(step)
    known = store.path("steps", identity).exists()

    def build(folder: Path) -> None:
        state = store.partial("steps", identity) / "state.pt"
        model, facts = _train(config, runtime, step, previous, state, after_epoch)
        torch.save(model.student.state_dict(), folder / "weights.pt")
        write_json(folder / "facts.json", facts)

    folder = store.get("steps", identity, build)
    facts = json.loads((folder / "facts.json").read_text())
    if known:
        facts["time_saved_s"], facts["time_train_s"] = facts["time_train_s"], 0.0
    begin = time.perf_counter()
    ap = score(config, runtime, step, folder / "weights.pt")
    return StepResult(step, folder / "weights.pt", ap, facts | {"time_eval_s": time.perf_counter() - begin})


def score(config: TrialConfig, runtime: Runtime, step: int, weights: Path) -> ClassAP:
    """AP of every class seen by `step` on the runtime's split, from the store or evaluated now."""

    def build(folder: Path) -> None:
        detector = build_detector(config.detector, len(config.scenario.seen(step)), config.recipe).to(config.device)
        load_weights(detector, read_weights(weights), str(weights))
        write_json(folder / "ap.json", class_ap(detector, config, runtime, step))

    path = Store(runtime.store).get("scores", score_identity(config, runtime, step), build) / "ap.json"
    ap: ClassAP = json.loads(path.read_text())
    return ap


def class_ap(detector: BaseDetector, config: TrialConfig, runtime: Runtime, step: int) -> ClassAP:
    """AP of `detector` on every image of the runtime's split, for the classes seen by `step`."""
    seen = config.scenario.seen(step)
    split = runtime.scored
    truth = steps.evaluation_set(read_coco(split.annotations, split.digest), seen)
    dataset = DetectionDataset(truth, split.images, seen, test_pipeline(config.recipe), test_mode=True)
    ids = {category["name"]: category["id"] for category in truth["categories"]}
    category_ids = [ids[name] for name in seen]
    result = evaluate(truth, predict(detector, dataset, category_ids, config.batch_size, runtime.workers), category_ids)
    return {kind: [None if ap != ap else float(ap) for ap in result.per_class[kind]] for kind in KINDS}


@lru_cache(maxsize=4)
def read_coco(path: Path, digest: str) -> steps.Coco:
    """The annotations of a checked file; `digest` tells its versions apart."""
    coco: steps.Coco = json.loads(path.read_text(encoding="utf-8"))
    return coco


def read_weights(path: Path) -> StateDict:
    """The tensors of a weights file.

    Raises:
        CheckpointError: not a file of tensors alone.
    """
    try:
        weights: StateDict = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(str(path), [f"must be a file of tensors, but cannot be read: {error}"]) from error
    return weights


def _train(
    config: TrialConfig,
    runtime: Runtime,
    step: int,
    previous: StepResult | None,
    state: Path,
    after_epoch: AfterEpoch | None,
) -> tuple[IncrementalDetector, dict[str, float]]:
    engine.seed_everything(_seed(config, step))
    split = runtime.splits.train
    seen, learnt = config.scenario.seen(step), config.scenario.steps[step]
    coco = steps.training_set(read_coco(split.annotations, split.digest), learnt)
    dataset = DetectionDataset(coco, split.images, seen, train_pipeline(config.recipe))
    model = _model(config, step, previous).to(config.device)
    plan = _plan(config, runtime, step)
    losses: dict[str, float] = {}
    first: dict[str, int] = {}  # the epoch that this process began with

    def epoch_done(detector: BaseDetector, epoch: int, recent: dict[str, float]) -> None:
        losses.update(recent)
        first.setdefault("epoch", epoch - 1)
        left = (plan.epochs - epoch) * (time.perf_counter() - begin) / (epoch - first["epoch"])
        write_json(state.with_name(PROGRESS_FILE), {"done": epoch, "of": plan.epochs, "left_s": left})
        if after_epoch is not None and epoch < plan.epochs:
            after_epoch(detector, epoch, recent)

    begin = time.perf_counter()
    try:
        speed = engine.fit(model, dataset, plan, state, epoch_done)
    except TrainingError as error:
        raise TrainingError(f"step {step + 1}, {error.subject}", error.problems) from None
    facts = {
        "time_train_s": time.perf_counter() - begin,
        "images_train": float(len(dataset)),
        "images_eval": float(len(read_coco(runtime.scored.annotations, runtime.scored.digest)["images"])),
        "lr_effective": plan.lr,
        "batch_total": float(plan.batch_size),
        "peak_memory_mb": _peak_memory_mb(config.device),
        **_parameter_counts(model),
        **speed,
        **losses,
    }
    return model, facts


def _model(config: TrialConfig, step: int, previous: StepResult | None) -> IncrementalDetector:
    classes, new = len(config.scenario.seen(step)), len(config.scenario.steps[step])
    student = build_detector(config.detector, classes, config.recipe, None if previous else config.pretrained)
    everything = torch.arange(classes)
    if previous is None:
        return IncrementalDetector(student, everything, everything[:0])
    method = METHODS[config.method]
    params = method.params(**config.params)
    weights = read_weights(previous.weights)
    load_weights(student, grown(config.detector, weights, classes, params.new_row_init), str(previous.weights))
    old, fresh = everything[: classes - new], everything[classes - new :]
    if method.target is None:
        return IncrementalDetector(student, everything if params.loss_scope == "full" else fresh, old)
    teacher = build_detector(config.detector, len(old), config.recipe)
    load_weights(teacher, weights, str(previous.weights))
    gt = {name: getattr(params, name) for name in ("clamp_normaliser", "average_eps")}
    return IncrementalDetector(student, fresh, old, frozen(teacher), load(method.target)(params), gt)


def _plan(config: TrialConfig, runtime: Runtime, step: int) -> engine.Plan:
    base = DETECTORS[config.detector].optim()
    optim = base if step == 0 else type(base)(**config.optim)
    lr = engine.linear_lr(config.recipe, optim.lr_scale, config.batch_size)
    if step and config.params.get("lr_rule") == "none":
        lr = optim.lr_scale * config.recipe.base_lr
    return engine.Plan(
        recipe=config.recipe,
        epochs=config.epochs if step else config.base_epochs,
        batch_size=config.batch_size,
        lr=lr,
        weight_decay=optim.weight_decay,
        warmup_iters=optim.warmup_iters,
        seed=_seed(config, step),
        device=config.device,
        ema_momentum=config.ema_momentum,
        workers=runtime.workers,
    )


def _seed(config: TrialConfig, step: int) -> int:
    return ((config.seed if step else config.base_seed) * 1000 + step) % 2**32  # what NumPy takes


def _parameter_counts(model: IncrementalDetector) -> dict[str, float]:
    parameters = list(model.student.parameters())
    teacher = list(model.teacher.parameters()) if model.teacher is not None else []
    return {
        "params_total": float(sum(p.numel() for p in parameters)),
        "params_trainable": float(sum(p.numel() for p in parameters if p.requires_grad)),
        "params_teacher": float(sum(p.numel() for p in teacher)),
    }


def _peak_memory_mb(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
