"""The table of teacher responses against a live teacher: its costs, what it saves, and that the losses are the same."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from tests.bench.digits import base_step, live_teacher
from trainables import engine, training
from trainables.config import Runtime, TrialConfig
from trainables.detectors.families import GFL
from trainables.detectors.forward import Batch
from trainables.distillation.erd import Taught, taught
from trainables.incremental import IncrementalDetector
from trainables.step import StepResult
from trainables.step_data import training_data
from trainables.step_tables import StepTables

EPOCHS = 5
FLOOR = {
    "select": "elastic",
    "stat_scope": "all_levels",
    "box_response": "max_logit",
    "alpha_cls": 0.5,
    "alpha_box": 0.5,
}


def run(options: list[str]) -> dict[str, float]:
    """`build_s` and `bytes_per_image` of the table, the teacher's share of an iteration live and from the table, and
    `max_loss_difference`, relative."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench responses", description=__doc__)
    parser.add_argument("--batches", type=int, default=60, help="batches to time and to compare losses on")
    batches = parser.parse_args(options).batches
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config, runtime, base = base_step(folder)
        config, runtime = replace(config, epochs=EPOCHS), replace(runtime, floors={"erd": FLOOR})
        facts = {
            dtype: _built(replace(config, response_dtype=dtype), runtime, base) for dtype in ("float32", "float16")
        }
        times, difference = _compared(config, runtime, base, batches)
    for dtype, fact in facts.items():
        size = fact["num_bytes"] / fact["images"]
        print(f"{dtype}: built in {fact['build_s']:.1f} s, {fact['num_bytes'] / 1e6:.1f} MB, {size:.0f} bytes an image")
    shares = {way: times[way] / (times[way] + times["student"]) for way in ("live", "table")}
    for way, share in shares.items():
        print(
            f"{way}: teacher {1000 * times[way]:.2f} ms, the rest {1000 * times['student']:.1f} ms, {100 * share:.1f} %"
        )
    print(f"largest relative difference of a loss: {difference:.1e}")
    whole = facts["float32"]
    return {
        "build_s": whole["build_s"],
        "bytes_per_image": whole["num_bytes"] / whole["images"],
        "share_live": shares["live"],
        "share_table": shares["table"],
        "max_loss_difference": difference,
    }


def _built(config: TrialConfig, runtime: Runtime, base: StepResult) -> dict[str, float]:
    training.build_step_tables(config, runtime, 1, base.weights)
    (folder,) = (
        path.parent
        for path in Path(runtime.store).glob("responses/*/identity.json")
        if json.loads(path.read_text())["dtype"] == config.response_dtype
    )
    facts: dict[str, float] = json.loads((folder / "facts.json").read_text())
    return facts


def _compared(config: TrialConfig, runtime: Runtime, base: StepResult, batches: int) -> tuple[dict[str, float], float]:
    """Seconds an iteration of the student and of the teacher either way, and the largest difference of a loss."""
    with StepTables(config, runtime, 1) as tables:
        model = training.build_model(config, 1, base.weights, tables).train()
        teacher = live_teacher(config, runtime, base)
        plan = training.step_plan(config, runtime, 1)
        optimizer = torch.optim.AdamW(
            model.student.parameters(), lr=plan.lr, weight_decay=plan.weight_decay, fused=True
        )
        times, largest = {"student": 0.0, "live": 0.0, "table": 0.0}, 0.0
        loader = engine.data_loader(training_data(config, runtime, 1), plan)
        data = [batch for _, batch in zip(range(batches), loader, strict=False)]
        for batch in data:
            prepared = model.data_preprocessor(batch, True)
            images, samples = prepared["inputs"], prepared["data_samples"]
            begin = time.perf_counter()
            with torch.no_grad():
                live = taught(GFL.forward(teacher, images), model.distiller.params)
            told = time.perf_counter()
            _iteration(model, images, samples, live, optimizer)
            times["student"] += (time.perf_counter() - told) / len(data)
            times["live"] += (told - begin) / len(data)
            largest = max(largest, _difference(model, images, samples, live))
        known = tables.responses(lambda: teacher)  # anew: the first time it chooses, then it remembers
        for _ in range(EPOCHS):
            begin = time.perf_counter()
            for batch in data:
                known(batch["data_samples"])
            times["table"] += (time.perf_counter() - begin) / len(data) / EPOCHS
    return times, largest


def _iteration(model: IncrementalDetector, images: Any, samples: Any, live: Taught, optimizer: Any) -> None:
    student = GFL.forward(model.student, images)
    targets = model.targets(student, samples)
    losses = GFL.losses(student, targets, model.trained(samples), **model.gt_options)
    losses |= model.distiller(student, live, model.old, Batch(samples, targets))
    optimizer.zero_grad()
    torch.stack([value for name, value in losses.items() if name.startswith("loss")]).sum().backward()
    optimizer.step()


@torch.no_grad()
def _difference(model: IncrementalDetector, images: Any, samples: Any, live: Taught) -> float:
    """The largest relative difference between a loss by the live teacher and by a fresh look into the table."""
    student = GFL.forward(model.student, images)
    batch = Batch(samples, model.targets(student, samples))
    one, other = (model.distiller(student, known, model.old, batch) for known in (live, model.responses(samples)))
    return max(float((one[name] - other[name]).abs() / one[name].abs().clamp(min=1e-12)) for name in one)
