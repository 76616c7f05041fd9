"""The searcher of a sweep on parameters of every kind, and trials as Tune plays them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import cloudpickle

from sweeps.searcher import IncrementalSearch
from sweeps.spec import SweepSpec
from tests.sweeps.sweep_files import spec_of
from trainables.tune import EXCESSES, OBJECTIVE, PROGRESS, VALUES

Search = tuple[IncrementalSearch, SweepSpec]
SPACE = {"lambda_cls": [0.05, 5.0], "alpha_cls": "declared", "cls_loss": "declared", "warmup_iters": "declared"}


def search_of(storage: Path, **changes: Any) -> Search:
    """A searcher, and the spec that it is of; trials end after four epochs."""
    spec = replace(spec_of(**{"search": SPACE, "training": {"epochs": 4}} | changes), storage=storage)
    spec.folder.mkdir(parents=True, exist_ok=True)
    return IncrementalSearch(spec), spec


def flat(suggested: Any) -> dict[str, Any]:
    """What was suggested under the names of the spec's space; the method, where it varies, under its own."""
    found = {}
    for owner, own in suggested.items():
        found |= {f"{owner}/{name}": value for name, value in own.items()} if isinstance(own, dict) else {owner: own}
    return found


def result(progress: int, value: float) -> dict[str, Any]:
    """What a trial tells Tune on its clock."""
    return {PROGRESS: progress, OBJECTIVE: value, VALUES: [value], EXCESSES: [], "training_iteration": 77}


def run(searcher: IncrementalSearch, trial_id: str, *values: float, stopped: bool = False) -> None:
    """A trial as Tune plays it: the result that ends it comes with `on_trial_complete` alone if it is stopped."""
    searcher.suggest(trial_id)
    for progress, value in enumerate(values, start=1):
        if not (stopped and progress == len(values)):
            searcher.on_trial_result(trial_id, result(progress, value))
    searcher.on_trial_complete(trial_id, result(len(values), values[-1]))


def interrupted(folder: Path) -> SweepSpec:
    """A sweep whose driver is killed; Tune keeps the searcher as it was at the start, and its last snapshot."""
    killed, spec = search_of(folder)
    (folder / "at_start.pkl").write_bytes(cloudpickle.dumps(killed))
    run(killed, "t0", 0.1, 0.2, 0.3, 0.4)
    killed.suggest("t1")
    killed.suggest("t2")
    killed.save(str(folder / "snapshot.pkl"))
    run(killed, "t1", 0.1, 0.2, 0.3, 0.5)  # ends after the snapshot: Tune will play it again
    killed.suggest("t3")  # asked for after the snapshot: Tune will never hear of it
    return spec


def resumed(folder: Path) -> IncrementalSearch:
    """The searcher as `Tuner.restore` builds it."""
    searcher: IncrementalSearch = cloudpickle.loads((folder / "at_start.pkl").read_bytes())
    searcher.restore(str(folder / "snapshot.pkl"))
    return searcher


def go_on(searcher: IncrementalSearch) -> None:
    """The rest of the interrupted sweep, as Tune plays it."""
    run(searcher, "t1", 0.1, 0.2, 0.3, 0.7)
    run(searcher, "t2", 0.4, stopped=True)
    run(searcher, "t4", 0.1, 0.2, 0.3, 0.6)
