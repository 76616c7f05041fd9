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
from trainables.detectors import gfl_losses
from trainables.incremental import IncrementalDetector
from trainables.step_tables import StepTables, training_data


def run(options: list[str]) -> dict[str, float]:
    """`ratio`: the seconds of one of our iterations over those of the bare loop's, both of an ERD step."""
    parser = argparse.ArgumentParser(prog="tests.bench iteration", description=__doc__)
    parser.add_argument("--turns", type=int, default=3, help="of each way: a step of five epochs, a bare epoch")
    turns = parser.parse_args(options).turns
    with TemporaryDirectory() as folder:
        config, runtime, base = base_step(Path(folder))
        config = replace(config, epochs=5)
        times: dict[str, list[float]] = {"ours": [], "bare": []}
        for turn in range(turns):
            for name, way in _WAYS.items():
                with StepTables(config, runtime, 1) as tables:
                    model = training._model(config, 1, base.weights, tables).train()
                    times[name].append(way(model, config, runtime, Path(folder)))
                print(f"turn {turn + 1}, {name}: {1000 * times[name][-1]:.1f} ms an iteration", flush=True)
    medians = {name: median(values) for name, values in times.items()}
    ratio = median(ours / bare for ours, bare in zip(*times.values(), strict=True))
    print(f"ours {1000 * medians['ours']:.1f} ms, bare {1000 * medians['bare']:.1f} ms, ratio {ratio:.3f}")
    return {"ratio": ratio}


def _ours(model: IncrementalDetector, config: TrialConfig, runtime: Runtime, folder: Path) -> float:
    """A step as a trial has it: loader, tables, hooks, state, everything that `engine.fit` does."""
    dataset, plan = training_data(config, runtime, 1), training._plan(config, runtime, 1)
    (folder / "state.pt").unlink(missing_ok=True)
    begin = time.perf_counter()
    facts = engine.fit(model, dataset, plan, folder / "state.pt", lambda *_: None)
    return (time.perf_counter() - begin) / facts["iters"]


def _bare(model: IncrementalDetector, config: TrialConfig, runtime: Runtime, folder: Path) -> float:
    """An epoch's iterations of forward, losses, backward and optimizer, on the tensors of eight batches."""
    dataset, plan = training_data(config, runtime, 1), training._plan(config, runtime, 1)
    ready = [_ready(model, batch) for _, batch in zip(range(8), engine._loader(dataset, plan), strict=False)]
    optimizer = torch.optim.AdamW(model.student.parameters(), lr=plan.lr, weight_decay=plan.weight_decay, fused=True)
    iters = len(dataset) // plan.batch_size
    begin = time.perf_counter()
    for number in range(iters):
        images, targets, taught = ready[number % len(ready)]
        losses = _losses(model, images, targets, taught)
        optimizer.zero_grad()
        torch.stack([value for name, value in losses.items() if name.startswith("loss")]).sum().backward()
        clip_grad_norm_(model.student.parameters(), config.recipe.clip_norm)
        optimizer.step()
    return (time.perf_counter() - begin) / iters


def _ready(model: IncrementalDetector, batch: Any) -> tuple[Tensor, Any, Any]:
    data = model.data_preprocessor(batch, True)
    images, samples = data["inputs"], data["data_samples"]
    with torch.no_grad():
        output = gfl_losses.forward(model.student, images)
    return images, model.targets(output, samples), model.responses(samples)


def _losses(model: IncrementalDetector, images: Tensor, targets: Any, taught: Any) -> dict[str, Tensor]:
    student = gfl_losses.forward(model.student, images)
    losses = gfl_losses.losses(student, targets, model.trained, **model.gt_options)
    return losses | model.distiller(student, taught, model.old, ())


_WAYS: dict[str, Callable[[IncrementalDetector, TrialConfig, Runtime, Path], float]] = {"ours": _ours, "bare": _bare}
