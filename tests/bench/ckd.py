"""An iteration of center resampling and collaborative distillation against mmdet's own step of the same network.

Linux, for the peaks of memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_

from search_spaces.ilyolox import PRESETS
from tests.bench.digits import base_step, live_teacher
from trainables import engine, training
from trainables.config import Runtime, TrialConfig
from trainables.step import StepResult
from trainables.step_data import training_data
from trainables.step_tables import StepTables

KINDS = {
    "released": ("released", False),
    "released, live": ("released", True),
    "paper": ("paper", False),
    "paper, live": ("paper", True),
}
"""By name: the preset, and whether its teacher is asked live."""
MMDET = "mmdet"


def run(options: list[str]) -> dict[str, float]:
    """`ratio`: seconds an iteration of `released` with its table over mmdet's; likewise `ratio_live` (teacher live),
    `ratio_paper` and `ratio_paper_live`; `memory_ratio`: peak memory of `released` over mmdet's."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench ckd", description=__doc__)
    parser.add_argument("--turns", type=int, default=3, help="each an epoch of every kind, and one of mmdet's after it")
    parser.add_argument("--memory-of", choices=[MMDET, *KINDS], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(options)
    if given.memory_of:
        _epoch(given.memory_of, *_base(given.folder), given.folder / "state.pt")
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return {"peak_mb": int(status["VmHWM"].split()[0]) / 2**10}  # a ru_maxrss begins with that of the parent
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config, runtime, base = _base(folder)
        pairs: dict[str, list[float]] = {name: [] for name in KINDS}
        for turn in range(given.turns):
            told = []
            for name in KINDS:
                ours = _epoch(name, config, runtime, base, folder / f"{name}-{turn}.pt")
                bare = _epoch(MMDET, config, runtime, base, folder)
                pairs[name].append(ours / bare)
                told.append(f"{name} {1000 * ours:.0f} (mmdet {1000 * bare:.0f})")
            print(f"turn {turn + 1}, ms an iteration: {', '.join(told)}", flush=True)
        peaks = {name: _peak_mb(name, folder) for name in (MMDET, "released")}
    print(f"peak memory: mmdet {peaks[MMDET]:.0f} MB, released {peaks['released']:.0f} MB")
    keys = {
        "released": "ratio",
        "released, live": "ratio_live",
        "paper": "ratio_paper",
        "paper, live": "ratio_paper_live",
    }
    ratios = {keys[name]: median(values) for name, values in pairs.items()}
    for name in KINDS:
        print(f"{name}: {ratios[keys[name]]:.3f} of mmdet's")
    return ratios | {"memory_ratio": peaks["released"] / peaks[MMDET]}


def _base(folder: Path) -> tuple[TrialConfig, Runtime, StepResult]:
    return base_step(folder, detector="yoloy_tiny", method="ilyolox", params=asdict(PRESETS["released"]))


def _peak_mb(name: str, folder: Path) -> float:
    """Peak memory of a process of its own that trains an epoch; base step and tables are there."""
    command = [sys.executable, "-m", "tests.bench", "ckd", "--memory-of", name, "--folder", str(folder)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    peak: float = json.loads(printed.splitlines()[-1])["peak_mb"]
    return peak


def _epoch(name: str, config: TrialConfig, runtime: Runtime, base: StepResult, state: Path) -> float:
    """Seconds of an iteration, over an epoch of the first increment."""
    preset, live = KINDS.get(name, ("released", False))
    config = replace(config, params=asdict(PRESETS[preset]))
    with StepTables(config, runtime, 1) as tables:
        model = training.build_model(config, 1, base.weights, tables).train()
        if live:
            object.__setattr__(model, "teacher", live_teacher(config, runtime, base))  # not as a part of the model
            model.responses = None
        dataset, plan = training_data(config, runtime, 1), training.step_plan(config, runtime, 1)
        if name == MMDET:
            return _bare(model.student, dataset, plan)()
        begin = time.perf_counter()
        iters = engine.fit(model, dataset, plan, state, lambda *_: None)["iters"]
        return (time.perf_counter() - begin) / iters


def _bare(detector: Any, dataset: Any, plan: engine.Plan) -> Callable[[], float]:
    """mmdet's loss, backward and optimizer on eight ready batches, over as many iterations as an epoch has."""
    parameters = list(detector.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=plan.lr, weight_decay=plan.weight_decay, fused=True)
    loader = engine.data_loader(dataset, plan)
    ready = [detector.data_preprocessor(batch, True) for _, batch in zip(range(8), loader, strict=False)]

    def epoch() -> float:
        iters = len(dataset) // plan.batch_size
        begin = time.perf_counter()
        for number in range(iters):
            data = ready[number % len(ready)]
            losses = detector.loss(data["inputs"], data["data_samples"])
            optimizer.zero_grad()
            torch.stack(list(losses.values())).sum().backward()
            clip_grad_norm_(parameters, plan.recipe.clip_norm)
            optimizer.step()
        return (time.perf_counter() - begin) / iters

    return epoch
