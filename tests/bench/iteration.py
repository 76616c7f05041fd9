"""Our training iteration against the same student in a bare PyTorch loop on tensors that are ready."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from tests.bench.digits import base_step
from trainables import engine, training
from trainables.config import Runtime, TrialConfig
from trainables.datasets.image_table import StepDataset
from trainables.detectors.families import GFL
from trainables.detectors.forward import Batch
from trainables.incremental import IncrementalDetector
from trainables.step_data import training_data
from trainables.step_tables import StepTables

EPOCHS = 5


def run(options: list[str]) -> dict[str, float]:
    """`ratio`: the seconds of one of our iterations over those of the bare loop's, both of an ERD step."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench iteration", description=__doc__)
    parser.add_argument("--turns", type=int, default=3, help=f"each a step of {EPOCHS} epochs of either way")
    turns = parser.parse_args(options).turns
    pairs = []
    with TemporaryDirectory() as folder:
        config, runtime, base = base_step(Path(folder))
        config = replace(config, epochs=EPOCHS)
        for turn in range(turns):
            with StepTables(config, runtime, 1) as tables:
                models = [training.build_model(config, 1, base.weights, tables).train() for _ in range(2)]
                ours, bare = _turn(*models, config, runtime, Path(folder) / f"state-{turn}.pt")
            print(f"turn {turn + 1}: ours {1000 * ours:.1f} ms an iteration, bare {1000 * bare:.1f} ms", flush=True)
            pairs.append((ours, bare))
    ratio = median(ours / bare for ours, bare in pairs)
    print(f"ratio {ratio:.3f}")
    return {"ratio": ratio}


def _turn(
    ours: IncrementalDetector, bare: IncrementalDetector, config: TrialConfig, runtime: Runtime, state: Path
) -> tuple[float, float]:
    """Seconds of an iteration of either way. A bare epoch follows each of ours: what else the machine does hits both.

    Ours is a step as a trial has it: loader, tables, hooks, state, everything that `engine.fit` does.
    """
    dataset, plan = training_data(config, runtime, 1), training.step_plan(config, runtime, 1)
    bare_epoch = _bare(bare, dataset, plan)
    seconds = 0.0

    def after_epoch(*_: Any) -> None:
        nonlocal seconds
        seconds += bare_epoch()

    begin = time.perf_counter()
    iters = engine.fit(ours, dataset, plan, state, after_epoch)["iters"]
    return (time.perf_counter() - begin - seconds) / iters, seconds / iters


def _bare(model: IncrementalDetector, dataset: StepDataset, plan: engine.Plan) -> Callable[[], float]:
    """A function that runs an epoch on eight ready batches (forward, losses, backward, optimizer): its seconds."""
    ready = [ready_batch(model, batch) for _, batch in zip(range(8), engine.data_loader(dataset, plan), strict=False)]
    parameters = list(model.student.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=plan.lr, weight_decay=plan.weight_decay, fused=True)

    def epoch() -> float:
        begin = time.perf_counter()
        for number in range(len(dataset) // plan.batch_size):
            losses = step_losses(model, *ready[number % len(ready)])
            optimizer.zero_grad()
            torch.stack([value for name, value in losses.items() if name.startswith("loss")]).sum().backward()
            clip_grad_norm_(parameters, plan.recipe.clip_norm)
            optimizer.step()
        return time.perf_counter() - begin

    return epoch


def ready_batch(model: IncrementalDetector, batch: Any) -> tuple[Tensor, Any, Any, Tensor]:
    """Images of a batch, what each location should say, what the teacher says, and the classes that each trains."""
    data = model.data_preprocessor(batch, True)
    images, samples = data["inputs"], data["data_samples"]
    with torch.no_grad():
        output = GFL.forward(model.student, images)
    return images, model.targets(output, samples), model.responses(samples), model.trained(samples)


def step_losses(
    model: IncrementalDetector, images: Tensor, targets: Any, taught: Any, trained: Tensor
) -> dict[str, Tensor]:
    """Those of ERD on such a batch."""
    student = GFL.forward(model.student, images)
    losses = GFL.losses(student, targets, trained, **model.gt_options)
    return losses | model.distiller(student, taught, model.old, Batch((), targets))
