"""`fit()`: the only place that builds an mmengine Runner. Trains one step, resumable after every epoch."""

from __future__ import annotations

import itertools
import os
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.datasets.samplers import AspectRatioBatchSampler
from mmengine.logging import MessageHub, MMLogger
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from torch.utils.data import BatchSampler, DataLoader

from trainables.datasets.image_table import StepDataset, stacked
from trainables.datasets.replay import ReplayBatches, ReplayDataset
from trainables.errors import TrainingError
from trainables.hooks import AfterEpoch, AverageHook, ClockHook, StateHook
from trainables.incremental import IncrementalDetector
from trainables.ranks import RankShare, WholeSampler, world
from trainables.recipes import Recipe

_run_number = itertools.count()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How one step is trained.

    Attributes:
        batch_size: of an iteration, over all devices.
        lr: the effective rate.
        ema_momentum: of an exponential moving average of the weights; 0 for none.
        workers: loader processes.
        replay_ratio: share of a batch that is replayed, where the data are a `ReplayDataset`.
        stop: end after so many epochs, as if to go on later; by default after the last.
    """

    recipe: Recipe
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    warmup_iters: int
    seed: int
    device: str
    ema_momentum: float = 0.0
    workers: int = 0
    replay_ratio: float = 0.0
    stop: int | None = None


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on all devices."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def fit(
    model: IncrementalDetector, dataset: StepDataset | ReplayDataset, plan: Plan, state: Path, after_epoch: AfterEpoch
) -> dict[str, float]:
    """Train `model` in place; `iters`, the step's iterations, and of those trained now `it_per_s`, `images_seen` and
    `time_gradient_s`, the seconds of forward, backward and optimizer.

    Where the process is one of several ranks, all of them call it and train the same model on shares of the batches.

    Args:
        state: file with the state after the last finished epoch; training goes on from it where it exists.
        after_epoch: see `AfterEpoch`.

    Raises:
        CheckpointError: the state file cannot be used.
        TrainingError: a loss that is not finite, with the iteration; fewer images than a batch for several devices.
    """
    name = f"palimpsest-{os.getpid()}-{next(_run_number)}"
    loader = data_loader(dataset, plan)
    if world()[1] > 1:
        model.synchronise()
    averaging = [AverageHook(plan.ema_momentum)] if plan.ema_momentum else []
    stop = plan.epochs if plan.stop is None else plan.stop
    resuming, clock = StateHook(state, after_epoch, plan.lr, plan.weight_decay, stop, *averaging), ClockHook()
    with tempfile.TemporaryDirectory(prefix=name) as folder:
        runner = _QuietRunner(
            model=model,
            work_dir=folder,
            experiment_name=name,
            train_dataloader=loader,
            custom_hooks=[clock, *averaging, resuming],
            **_runner_options(plan, len(loader)),
        )
        begin = time.perf_counter()
        try:
            runner.train()
        except TrainingError as error:
            raise TrainingError(f"iteration {runner.iter + 1}", error.problems) from None
        finally:
            for singleton in (MMLogger, MessageHub, Visualizer):
                singleton._instance_dict.pop(name, None)
    if not all(parameter.isfinite().all() for parameter in model.student.parameters()):
        raise TrainingError(f"iteration {runner.iter}", ["every weight must be finite, but one is not"])
    now = runner.iter - resuming.first_iter
    return {
        "iters": float(runner.iter),
        "it_per_s": now / (time.perf_counter() - begin),
        "images_seen": float(now * plan.batch_size),
        "time_gradient_s": clock.seconds,
    }


class _QuietRunner(Runner):
    """A Runner that leaves the model where it is: mmengine would choose a device, and undo SyncBatchNorm. Nor does it
    spend its start on describing the machine to a log that nobody reads.
    """

    def wrap_model(self, model_wrapper_cfg: Any, model: Any) -> Any:
        return model

    def _log_env(self, env_cfg: dict[str, Any]) -> None:
        pass


def autocast(device: str) -> torch.autocast:
    """The context of a forward pass as training has it: mixed precision on a GPU, float32 elsewhere."""
    return torch.autocast(device, dtype=_gpu_dtype() if device == "cuda" else None, enabled=device == "cuda")


def _gpu_dtype() -> torch.dtype:
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def data_loader(dataset: StepDataset | ReplayDataset, plan: Plan) -> DataLoader:
    """The batches of every epoch; of several ranks this one's share."""
    return DataLoader(
        dataset,
        batch_sampler=_batches(dataset, plan),
        num_workers=plan.workers,
        collate_fn=stacked,
        worker_init_fn=_seed_worker,
    )


def _batches(dataset: StepDataset | ReplayDataset, plan: Plan) -> Any:
    whole, several = len(dataset) >= plan.batch_size, world()[1] > 1
    if several and not whole:
        must = f"must be at least a batch of all devices, {plan.batch_size}, but are {len(dataset)}"
        raise TrainingError("its images", [must])
    if isinstance(dataset, ReplayDataset):
        batches: Any = ReplayBatches(dataset, plan.batch_size, plan.replay_ratio, plan.seed)
    else:
        kind = AspectRatioBatchSampler if plan.recipe.scale else BatchSampler
        batches = kind(WholeSampler(dataset, plan.seed), plan.batch_size, whole)
    return RankShare(batches) if several else batches


def _seed_worker(worker: int) -> None:
    # torch gives each worker of each epoch its own seed; NumPy and random would repeat theirs.
    seed = torch.initial_seed() % 2**32
    np.random.seed(seed)
    random.seed(seed)


def _runner_options(plan: Plan, iters_per_epoch: int) -> dict[str, Any]:
    return {
        "train_cfg": {"by_epoch": True, "max_epochs": plan.epochs},
        "optim_wrapper": _optim_wrapper(plan),
        "param_scheduler": _schedule(plan, iters_per_epoch),
        "default_hooks": {"runtime_info": None, "timer": None, "logger": None, "checkpoint": None},
        "randomness": {"seed": plan.seed, "diff_rank_seed": True},
        "log_level": "ERROR",
        "default_scope": "mmdet",
    }


def _optim_wrapper(plan: Plan) -> dict[str, Any]:
    recipe = plan.recipe
    optimizer: dict[str, Any] = {"type": recipe.optimizer, "lr": plan.lr, "weight_decay": plan.weight_decay}
    optimizer["fused"] = plan.device == "cpu"
    if recipe.optimizer == "SGD":
        optimizer["momentum"] = recipe.momentum
    wrapper: dict[str, Any] = {"type": "OptimWrapper", "optimizer": optimizer}
    if recipe.clip_norm:
        wrapper["clip_grad"] = {"max_norm": recipe.clip_norm}
    if plan.device == "cuda":
        wrapper |= {"type": "AmpOptimWrapper", "dtype": str(_gpu_dtype()).removeprefix("torch.")}
    return wrapper


def _schedule(plan: Plan, iters_per_epoch: int) -> list[dict[str, Any]]:
    total = plan.epochs * iters_per_epoch
    warmup = min(plan.warmup_iters, total - 1)
    schedule: list[dict[str, Any]] = []
    if warmup > 0:
        start = plan.recipe.warmup_ratio
        schedule.append({"type": "LinearLR", "start_factor": start, "by_epoch": False, "begin": 0, "end": warmup})
    if plan.recipe.schedule == "cosine":
        ratio, by = plan.recipe.final_ratio, {"by_epoch": False, "begin": warmup, "end": total}
        schedule.append({"type": "CosineAnnealingLR", "eta_min_ratio": ratio, "T_max": total - warmup, **by})
    else:
        milestones = [round(fraction * plan.epochs) for fraction in plan.recipe.milestones]
        schedule.append({"type": "MultiStepLR", "milestones": milestones, "gamma": 0.1, "by_epoch": True})
    return schedule
