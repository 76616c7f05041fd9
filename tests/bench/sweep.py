"""A sweep of ours against the way the published code is used: one process a trial (`tests.bench.isolated`).

The configurations are those that our sweep finds without early stopping; the sweep with ASHA and the isolated trials
take the same. Every way runs as many trials at once as there are cores, one thread each, and the ways take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml

from search_spaces.distributions import Scalar
from sweeps import work
from sweeps.results import searched, typed_params
from sweeps.spec import CONFIGS, SweepSpec, load_spec
from sweeps.warm_start import Known
from tests.bench.processes import Command
from trainables.config import TrialConfig
from trainables.journal import read
from trainables.store import Store
from trainables.tune import events_file

DRIVER = "import sys; from tests.bench.sweep import drive; drive(*sys.argv[1:])"
AT_ONCE = os.cpu_count() or 1
NONE, ASHA = {"name": "none"}, {"name": "asha", "grace": 1, "reduction_factor": 3}
Point = dict[str, Scalar]


@dataclass(frozen=True)
class Sweep:
    """What a sweep of ours took, and after its references; `points` and `events` by the number of the trial."""

    wall_s: float
    cpu_s: float
    search_cpu_s: float
    points: list[Point]
    events: list[list[dict[str, Any]]]

    def ends(self, number: int) -> list[dict[str, Any]]:
        """The events at the ends of a trial's steps."""
        return [event for event in self.events[number] if "classes" in event]

    def fact(self, name: str) -> float:
        """The sum of a fact over the increments of all trials."""
        ends = [end for number in range(len(self.events)) for end in self.ends(number)]
        return sum(end["facts"].get(name, 0.0) for end in ends if end["step"])

    @property
    def best(self) -> float:
        """The best AP of all classes that a trial ended with."""
        whole = [ends[-1] for number in range(len(self.events)) if len(ends := self.ends(number)) == 2]
        return max(end["metrics"]["ap_all"] for end in whole)


@dataclass(frozen=True)
class Isolated:
    """What an isolated trial took and found, and the weights (files) that our sweep has for the same configuration."""

    cpu_s: float
    inside_s: float
    ap: list[Any]
    weights: list[Path]
    ours: list[Path]


def run(options: list[str]) -> dict[str, Any]:
    """Ratios of wall and CPU seconds (theirs / ours), whether each AP is the same, and the share of gradient steps."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench sweep", description=__doc__)
    parser.add_argument("--spec", type=Path, default=CONFIGS / "erd_digits.yaml")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--keep", type=Path, help="folder for everything that is written; default: one that goes")
    given = parser.parse_args(options)
    with TemporaryDirectory() as temporary:
        return _compared(given.spec, given.trials, (given.keep or Path(temporary)).absolute())


def _compared(origin: Path, trials: int, folder: Path) -> dict[str, Any]:
    print("drawing the scenes, which all ways share", flush=True)
    work.prepared(load_spec(_spec_file(origin, trials, folder, "isolated", NONE)))
    whole = _sweep(_spec_file(origin, trials, folder, "whole", NONE), ())
    half = len(whole.points) // 2
    their_walls, theirs = [], []
    isolated = partial(_isolated, _spec_file(origin, trials, folder, "isolated", NONE), folder)
    for part in (whole.points[:half], None, whole.points[half:]):
        if part is None:
            asha = _sweep(_spec_file(origin, trials, folder, "asha", ASHA), whole.points[1:])
        else:
            wall, results = isolated(part, len(theirs))
            their_walls.append(wall)
            theirs += results
    return _told(whole, asha, sum(their_walls), theirs)


def _spec_file(origin: Path, trials: int, folder: Path, name: str, scheduler: dict[str, Any]) -> Path:
    """The sweep without what the isolated way does not do either: joint references and compared methods."""
    content = yaml.safe_load(origin.read_text())
    content |= {"name": name, "trials": trials, "compare": [], "storage": str(folder / name)}
    content["data"] = {**content.get("data", {"kind": "digits"}), "root": str(folder / "data")}
    content |= {"scheduler": scheduler, "tracking_uri": f"sqlite:///{folder / name}.db"}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def drive(spec_file: str, points: str) -> None:
    """`sweeps run`, in a process of its own, where trial 0 is followed by `points`."""
    from sweeps import runner
    from sweeps.progress import Display

    runner.known_trials = lambda spec: Known(guesses=json.loads(points))
    with Display() as display:
        runner.run_sweep(load_spec(Path(spec_file)), False, display)


def _sweep(spec_file: Path, points: Sequence[Point]) -> Sweep:
    references_cpu_s = 0.0

    def on_line(line: str) -> None:
        nonlocal references_cpu_s
        print(f"  {line}", flush=True)
        if line.startswith("reference "):
            references_cpu_s = command.cpu_s()

    print(f"our sweep {spec_file.stem!r}:", flush=True)
    command = Command([sys.executable, "-c", DRIVER, str(spec_file), json.dumps(points)], spec_file.parent, on_line)
    wall_s, cpu_s = command.wait()
    print(f"  {wall_s:.0f} s, CPU {cpu_s:.0f} s", flush=True)
    spec = load_spec(spec_file)
    found = searched(spec.tracking_uri, spec.name)
    files = [events_file(spec.folder / "trials", trial.trial_id) for trial in found]
    params = [typed_params(spec, trial.method, trial.params) for trial in found]
    return Sweep(
        wall_s,
        cpu_s,
        cpu_s - references_cpu_s,
        [{name: values[name] for name in spec.space} for values in params],
        [read(path) for path in files],
    )


def _isolated(spec_file: Path, folder: Path, points: Sequence[Point], first: int) -> tuple[float, list[Isolated]]:
    """Wall seconds of the trials, as many at once as there are cores, and what each took."""
    spec, whole = load_spec(spec_file), load_spec(folder / "whole.yaml")
    splits = work.prepared(spec)

    def trial(number: int, point: Point) -> Isolated:
        config = work.configured(spec, splits, spec.method, {**spec.all_defaults(), **point})
        given, out = folder / f"isolated-{number}.pickle", folder / f"isolated-{number}.json"
        given.write_bytes(pickle.dumps((config, _alone(spec, config, splits, folder / f"isolated-{number}"))))
        command = Command([sys.executable, "-m", "tests.bench.isolated", str(given), str(out)], folder, _nowhere)
        wall_s, cpu_s = command.wait()
        print(f"  isolated trial {number}: {wall_s:.0f} s, CPU {cpu_s:.0f} s", flush=True)
        told = json.loads(out.read_text())
        ours = [Store(whole.store).find("steps", config.step_identity(step)) for step in range(2)]
        paths = [path / "weights.pt" for path in ours if path]
        return Isolated(cpu_s, told["inside_s"], told["ap"], [Path(path) for path in told["weights"]], paths)

    print(f"isolated trials from {first}:", flush=True)
    begin = time.time()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(trial, range(first, first + len(points)), points))
    return time.time() - begin, results


def _alone(spec: SweepSpec, config: TrialConfig, splits: Any, store: Path) -> Any:
    return replace(work.runtime(spec, splits), store=store, table_budget_gb=0.0)


def _nowhere(line: str) -> None:
    pass


def _told(whole: Sweep, asha: Sweep, their_wall: float, theirs: Sequence[Isolated]) -> dict[str, Any]:
    their_cpu, inside = sum(trial.cpu_s for trial in theirs), sum(trial.inside_s for trial in theirs)
    same = [_same(_class_aps(whole.ends(number)), trial) for number, trial in enumerate(theirs)]
    rows = {
        "isolated": (their_wall, their_cpu),
        "ours": (whole.wall_s, whole.cpu_s),
        "ours, ASHA": (asha.wall_s, asha.cpu_s),
    }
    print(f"{'':28}{'wall s':>10}{'ratio':>8}{'CPU s':>10}{'ratio':>8}")
    for name, (wall, cpu) in rows.items():
        print(f"{name:28}{wall:10.0f}{their_wall / wall:8.2f}{cpu:10.0f}{their_cpu / cpu:8.2f}")
    scale = 1 - inside / AT_ONCE / their_wall, 1 - inside / their_cpu
    print("  were the isolated trials scored at the ends of steps alone:")
    for name, (wall, cpu) in list(rows.items())[1:]:
        print(f"{name:28}{'':10}{scale[0] * their_wall / wall:8.2f}{'':10}{scale[1] * their_cpu / cpu:8.2f}")
    print(f"isolated: {inside / len(theirs):.1f} s a trial in evaluations inside steps")
    print(f"the same weights and AP in {sum(same)} of {len(same)} trials")
    print(f"best AP {whole.best:.4f}, with ASHA {asha.best:.4f}")
    gradient = whole.fact("time_gradient_s")
    parts = {
        "gradient steps": gradient,
        "rest of training": whole.fact("time_train_s") - gradient,
        "evaluation": whole.fact("time_eval_s"),
    }
    parts["processes, search, records"] = whole.search_cpu_s - sum(parts.values())
    print(f"CPU seconds after the references, {whole.search_cpu_s:.0f}:")
    for name, seconds in parts.items():
        print(f"  {name:28}{seconds:8.1f} s {100 * seconds / whole.search_cpu_s:6.1f} %")
    return {
        "wall_ratio": their_wall / whole.wall_s,
        "cpu_ratio": their_cpu / whole.cpu_s,
        "wall_ratio_asha": their_wall / asha.wall_s,
        "cpu_ratio_asha": their_cpu / asha.cpu_s,
        "ap_identical": all(same),
        "best_ap_difference_asha": whole.best - asha.best,
        "gradient_share": gradient / whole.search_cpu_s,
    }


def _same(ours: list[dict[str, list[float | None]]], trial: Isolated) -> bool:
    """Whether every weight is the same to the bit, and every class AP: pycocotools rounds their last bit otherwise."""
    weights = [[torch.load(path, weights_only=True) for path in paths] for paths in (trial.ours, trial.weights)]
    pairs = zip(*weights, strict=True)
    same = all(torch.equal(one[name], other[name]) for one, other in pairs for name in one)
    return same and all(
        (one is None) == (other is None) and abs((one or 0) - (other or 0)) < 1e-12
        for step, theirs in zip(ours, trial.ap, strict=True)
        for kind in step
        for one, other in zip(step[kind], theirs[kind], strict=True)
    )


def _class_aps(ends: Sequence[dict[str, Any]]) -> list[dict[str, list[float | None]]]:
    """The class APs of each step by kind, as `trainables.records.ClassAP`."""
    kinds = [kind for kind in ends[0]["classes"][0] if kind not in ("class", "step")]
    return [{kind: [row[kind] for row in end["classes"]] for kind in kinds} for end in ends]
