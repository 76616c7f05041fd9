"""The leaders of a search under more seeds: trained as Ray tasks, judged by `sweeps.race`, recorded."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import product
from statistics import fmean
from typing import Any

from sweeps.progress import Display
from sweeps.race import NUM_LEADERS, Result, race
from sweeps.recorder import Ended, Recorder, now_ms
from sweeps.references import Tasks
from sweeps.results import mean_ranks, ranked, with_ranks
from sweeps.spec import SweepSpec
from sweeps.tracking import Tracker
from trainables.config import Runtime
from trainables.objectives import COSTS
from trainables.records import partial_step
from trainables.scenarios import Scenario
from trainables.tune import chain_task


def run_race(
    ray: Any, spec: SweepSpec, recorder: Recorder, runtime: Runtime, tracker: Tracker, display: Display
) -> Result | None:
    """Run the leaders of a search under the sweep's seeds, on its whole chains; None where none came to its end.

    What the store holds is not trained again: the search's own seed, and everything of an interrupted race.
    """
    leaders = {trial.number: trial for trial in leading(spec, recorder.ended)}
    if not leaders:
        return None
    maximise = spec.objective.direction == "max"

    def run(numbers: Sequence[int], seed: int) -> list[float | None]:
        tasks, under_way = Tasks(ray, spec, display, "leader"), {}
        names: dict[int, list[str]] = {number: [] for number in numbers}
        for number, scenario in product(numbers, spec.whole_scenarios):
            config = replace(leaders[number].config, seed=seed, scenario=scenario)
            name = f"trial {number}, seed {seed}" + (f", {scenario.name}" if spec.aim.pooled else "")
            tasks.submit(name, chain_task, config, runtime, optional=True)
            under_way[name] = partial_step(config, runtime)
            names[number].append(name)
        results = tasks.results(under_way)
        recorder.spent_s += tasks.spent_s
        chains = [[results[name] for name in names[number] if name in results] for number in numbers]
        whole = [own if len(own) == len(spec.whole_scenarios) else None for own in chains]
        return _values(spec, whole)

    result = race(list(leaders), range(spec.seed, spec.seed + spec.seeds), maximise, run)
    if not result.values:
        display.say("no leader came to its end under another seed")
        return None
    words = result.words(1.0 if spec.objective.metric in COSTS else 100.0)
    for number, values in result.values.items():
        told = {"race/mean": fmean(values), "race/spread": (max(values) - min(values)) / 2, "race/seeds": len(values)}
        tracker.log_trial(leaders[number].trial_id, told, {}, now_ms())
    tracker.log_text(json.dumps({**asdict(result), "words": words}, indent=1), "race.json")
    display.say(f"{spec.objective.name}: {words}")
    return result


def joined(scenarios: Sequence[Scenario], chains: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The events of chains on several scenarios as those of one trial."""
    return [event | {"scenario": one.name} for one, events in zip(scenarios, chains, strict=True) for event in events]


def leading(spec: SweepSpec, ended: Sequence[Ended]) -> list[Ended]:
    """The best finished trials that meet the constraints, best first."""
    able = [trial for trial in with_ranks(ended) if trial.values(spec.aim) and trial.holds(spec.aim)]
    return ranked(spec.aim, able)[:NUM_LEADERS]


def _values(spec: SweepSpec, chains: Sequence[Sequence[list[dict[str, Any]]] | None]) -> list[float | None]:
    """The objective of each leader under one seed; where trials are judged by their rank, that among these leaders."""
    events = [joined(spec.whole_scenarios, own) for own in chains if own]
    if spec.aim.pooled == "rank":
        found = mean_ranks([spec.aim.parts(own) for own in events])
    else:
        found = [spec.aim.values(own)[0] for own in events]
    left = iter(found)
    values = [next(left) if own else None for own in chains]
    return [value if value is not None and math.isfinite(value) else None for value in values]
