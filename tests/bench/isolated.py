"""One trial the way the published code is used, as a process: `python -m tests.bench.isolated CONFIG OUT`.

It trains its own base step, asks a live teacher, decodes and assigns at every iteration, and evaluates with pycocotools
after every epoch (`val_interval=1` of mmdet's schedule, which ERD's configurations take over). Student, losses and
optimizer are ours, so that what the two ways find can be compared to the bit.
"""

from __future__ import annotations

import copy
import json
import pickle
import sys
import time
from pathlib import Path
from typing import Any

from tests.bench.evaluation import pycocotools_evaluate
from trainables import step as steps
from trainables.config import Runtime, TrialConfig
from trainables.environment import prepare_process


def main(config: TrialConfig, runtime: Runtime) -> dict[str, Any]:
    """AP by class and weights (files) after each step, and the seconds of evaluations inside steps."""
    prepare_process(config.threads)
    steps.evaluate = lambda truth, found, ids: pycocotools_evaluate(copy.deepcopy(truth), found, ids)
    results: list[steps.StepResult] = []
    inside = 0.0
    for step in range(len(config.scenario.steps)):

        def after_epoch(detector: Any, epoch: int, losses: Any, step: int = step) -> None:
            nonlocal inside
            begin = time.perf_counter()
            steps.class_ap(detector, config, runtime, step)
            inside += time.perf_counter() - begin

        results.append(steps.run_step(config, runtime, step, results[-1] if results else None, after_epoch))
    weights = [str(result.weights) for result in results]
    return {"ap": [result.ap for result in results], "weights": weights, "inside_s": inside}


if __name__ == "__main__":
    given, out = map(Path, sys.argv[1:])
    out.write_text(json.dumps(main(*pickle.loads(given.read_bytes()))))
