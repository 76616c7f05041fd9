"""Ways to make a training iteration faster, each tried alone on the bare loop of `tests.bench.iteration`."""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_

from tests.bench.digits import base_step
from tests.bench.iteration import ready_batch, step_losses
from trainables import engine, training
from trainables.environment import prepare_process
from trainables.incremental import IncrementalDetector
from trainables.step_data import training_data
from trainables.step_tables import StepTables

CONTIGUOUS = {"format": torch.contiguous_format, "fused": False}
KEPT: dict[str, Any] = {"format": torch.channels_last, "fused": True}
VARIANTS: dict[str, dict[str, Any]] = {
    "contiguous, plain AdamW": CONTIGUOUS,
    "foreach AdamW": {**CONTIGUOUS, "foreach": True},
    "fused AdamW": {**CONTIGUOUS, "fused": True},
    "channels last": {**CONTIGUOUS, "format": torch.channels_last},
    "channels last, fused AdamW (kept)": KEPT,
    "kept, two threads": {**KEPT, "threads": 2},
    "kept, two processes at once (each)": {**KEPT, "processes": 2},
    "kept, denormals flushed": {**KEPT, "flush": True},
    "kept, bf16 autocast": {**KEPT, "bf16": True},
    "kept, torch.compile": {**KEPT, "compile": True},
}


def run(options: list[str]) -> dict[str, float]:
    """Seconds of an iteration under each variant over those of the first in its round, medians of the rounds."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench variants", description=__doc__)
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3, help="each takes every variant in turn, in fresh processes")
    given = parser.parse_args(options)
    ratios: dict[str, list[float]] = {name: [] for name in VARIANTS}
    with TemporaryDirectory() as folder:
        known = base_step(Path(folder))
        for number in range(given.rounds):
            seconds: dict[str, float] = {}
            for name, how in VARIANTS.items():
                processes = how.get("processes", 1)
                with multiprocessing.get_context("spawn").Pool(processes) as pool:
                    measured = pool.starmap(_measured, [(known, how, given.iterations)] * processes, chunksize=1)
                seconds[name], first = max(measured)
                ratios[name].append(seconds[name] / seconds[next(iter(VARIANTS))])
                line = f"round {number + 1}, {name:36}{1000 * seconds[name]:8.1f} ms{ratios[name][-1]:7.2f}"
                print(f"{line}   first iteration {first:.1f} s", flush=True)
    for name, values in ratios.items():
        print(f"{name:36}{median(values):7.2f}")
    return {name: median(values) for name, values in ratios.items()}


def _measured(known: Any, how: Mapping[str, Any], iterations: int) -> tuple[float, float]:
    """Seconds of an iteration, median after a warm-up, and of the first."""
    config, runtime, base = known
    prepare_process(how.get("threads", 1))
    torch.set_flush_denormal(how.get("flush", False))
    with StepTables(config, runtime, 1) as tables:
        model = training.build_model(config, 1, base.weights, tables).train().to(memory_format=how["format"])
        plan = training.step_plan(config, runtime, 1)
        loader = engine.data_loader(training_data(config, runtime, 1), plan)
        ready = [ready_batch(model, batch) for _, batch in zip(range(4), loader, strict=False)]
        step = _step(model, plan, how)
        times = []
        for number in range(iterations):
            begin = time.perf_counter()
            step(*ready[number % len(ready)])
            times.append(time.perf_counter() - begin)
    return median(times[5:]), times[0]


def _step(model: IncrementalDetector, plan: engine.Plan, how: Mapping[str, Any]) -> Callable[..., None]:
    student, parameters = model.student, list(model.student.parameters())
    if how.get("compile"):
        student.extract_feat = torch.compile(student.extract_feat)
    extra = {"foreach": True} if how.get("foreach") else {"fused": how["fused"]}
    optimizer = torch.optim.AdamW(parameters, lr=plan.lr, weight_decay=plan.weight_decay, **extra)
    precision = torch.autocast("cpu", torch.bfloat16) if how.get("bf16") else contextlib.nullcontext()

    def step(*batch: Any) -> None:
        with precision:
            losses = step_losses(model, *batch)
        optimizer.zero_grad()
        torch.stack([value.float() for name, value in losses.items() if name.startswith("loss")]).sum().backward()
        clip_grad_norm_(parameters, plan.recipe.clip_norm)
        optimizer.step()

    return step
