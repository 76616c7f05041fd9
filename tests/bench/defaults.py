"""What the methods of a sweep file score with their defaults, and what they are compared with: `docs/results.md`.

On the test split, seed 0. Chains run side by side, one thread each; on the same kind of CPU they end in the same bits.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from sweeps import work
from sweeps.spec import CONFIGS, SweepSpec, load_spec
from trainables.config import Runtime, TrialConfig
from trainables.environment import printing_into
from trainables.tune import chain_task, first_step_task

COLUMNS = ("ap_all", "ap_old", "ap_new", "forgetting")


def run(options: list[str]) -> dict[str, float]:
    """By scenario and name the AP of all classes at the end of the chain, in COCO points."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench defaults", description=__doc__)
    parser.add_argument("--spec", type=Path, default=CONFIGS / "methods_digits.yaml")
    given = parser.parse_args(options)
    with TemporaryDirectory() as temporary:
        spec = replace(load_spec(given.spec), storage=Path(temporary), store=Path(temporary) / "store")
        return _table(spec, Path(temporary) / "log.txt")


def _table(spec: SweepSpec, log: Path) -> dict[str, float]:
    splits = work.prepared(spec)
    runtime = work.runtime(spec, splits, evaluate_on="test")
    named = {work.base_name(spec, method): config for method, config in work.base_configs(spec, splits).items()}
    named |= work.compared(spec, splits)
    result = {}
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        for scenario in spec.report_scenarios:
            chains = {name: work.final(spec, config, 0, scenario) for name, config in named.items()}
            first = next(iter(chains.values()))
            pool.submit(_first_step, first, runtime, log).result()
            asked = {pool.submit(_chain, config, runtime, log): name for name, config in chains.items()}
            for future in as_completed(asked):
                name, points = f"{scenario.name} {asked[future]}", future.result()
                print(f"{name}: {', '.join(f'{column} {value:.1f}' for column, value in points.items())}", flush=True)
                result[name] = points["ap_all"]
    return result


def _first_step(config: TrialConfig, runtime: Runtime, log: Path) -> None:
    with printing_into(log):
        first_step_task(config, runtime)


def _chain(config: TrialConfig, runtime: Runtime, log: Path) -> dict[str, float]:
    with printing_into(log):
        end = chain_task(config, runtime)[-1]["metrics"]
    return {column: 100 * end[column] for column in COLUMNS if column in end}
