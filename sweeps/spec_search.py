"""What types cannot tell of a sweep file's search: objectives, constraints, sampler, scheduler, budget."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sweeps.samplers import SAMPLERS, num_grid_values
from sweeps.spec_file import Aimed, choices
from sweeps.spec_parameters import space
from trainables.catalog import DETECTORS, METHODS
from trainables.objectives import COSTS, DIRECTION_OF, Constraint

MAX_POINTS = 100_000  # of a grid
ACTS_WITH = {
    "grace": ("asha", "hyperband", "median"), "reduction_factor": ("asha", "hyperband"), "brackets": ("hyperband",),
    "interval": ("pbt",),
}  # fmt: skip
CONSTRAINT = re.compile(r"\s*(\w+)\s*(<=|>=)\s*([-+.\w]+)\s*")


def search_problems(values: Mapping[str, Any], increments: int | None) -> list[str]:
    """What is wrong with objectives, constraints, sampler, scheduler and budget.

    Args:
        values: typed values of a sweep file; a key at fault in itself is not among them.
        increments: steps of the scenario after the first; None where the scenario is at fault.
    """
    first_alone = "budget" in values and values["budget"].steps == "first"
    return [
        *_aim_problems(values, increments),
        *_sampler_problems(values),
        *_each_method_problems(values),
        *_idle_keys(values),
        *_scheduler_problems(values, 1 if first_alone and increments else increments),
        *_population_problems(values),
        *_budget_problems(values),
    ]


def _aim_problems(values: Mapping[str, Any], increments: int | None) -> Iterator[str]:
    objectives = values.get("objective", ())
    for aimed in objectives:
        if aimed.metric not in DIRECTION_OF:
            yield f"objective: {aimed.metric!r} is unknown; {choices(aimed.metric, DIRECTION_OF)}"
        if isinstance(aimed.over, list):
            yield from _weight_problems(aimed.over, increments)
    names = [(aimed.metric, str(aimed.over)) for aimed in objectives]
    if len(set(names)) < len(names):
        yield f"objective: must all differ, but got {', '.join(metric for metric, _ in names)}"
    for text in values.get("constraints", ()):
        if line := constraint_problem(text):
            yield f"constraints: {line}"


def _weight_problems(weights: list[float], increments: int | None) -> Iterator[str]:
    if increments is not None and len(weights) != increments:
        yield f"objective.over: needs a weight for each of the {increments} increments, but got {len(weights)}"
    if not all(0 <= weight < math.inf for weight in weights) or sum(weights) <= 0:
        yield f"objective.over: weights must be 0 or more, and not all 0, but got {weights}"


def constraint_problem(text: str) -> str | None:
    """What is wrong with a constraint, or None."""
    match = CONSTRAINT.fullmatch(text)
    try:
        finite = match is not None and math.isfinite(float(match[3]))
    except ValueError:
        finite = False
    if match is None or not finite:
        return f"must be like `forgetting <= 0.05`, with <= or >= and a number, but got {text!r}"
    if match[1] not in DIRECTION_OF:
        return f"{match[1]!r} is unknown; {choices(match[1], DIRECTION_OF)}"
    return None


def constraint_of(text: str) -> Constraint:
    """The constraint that a right line of a sweep file asks for."""
    match = CONSTRAINT.fullmatch(text)
    assert match is not None
    return Constraint(match[1], match[2], float(match[3]))


def _sampler_problems(values: Mapping[str, Any]) -> Iterator[str]:
    sampler, objectives = values.get("sampler"), values.get("objective", ())
    if sampler is not None and sampler not in SAMPLERS:
        yield f"sampler: {sampler!r} is unknown; {choices(sampler, SAMPLERS)}"
    elif sampler is not None:
        if len(objectives) > 1 and not SAMPLERS[sampler].objectives:
            able = [name for name, kind in SAMPLERS.items() if kind.objectives]
            yield f"sampler: {sampler!r} takes one objective, but got {len(objectives)}; available: {', '.join(able)}"
        if values.get("constraints") and not SAMPLERS[sampler].constraints:
            able = [name for name, kind in SAMPLERS.items() if kind.constraints]
            yield f"sampler: {sampler!r} takes no constraints; available: {', '.join(able)}"
    if sampler == "grid":
        yield from _grid_problems(values)
    scheduler = values.get("scheduler")
    if scheduler and scheduler.name not in (None, "none") and not known_on_the_way(objectives):
        yield f"scheduler.name: must be `none` with several objectives or a cost, but got {scheduler.name}"


def known_on_the_way(objectives: Sequence[Aimed]) -> bool:
    """Whether a trial can be judged before its end: by one objective, which is no cost of a whole step."""
    return len(objectives) == 1 and objectives[0].metric not in COSTS


def _grid_problems(values: Mapping[str, Any]) -> Iterator[str]:
    methods, detector = values.get("method"), values.get("detector")
    if not methods or not all(method in METHODS for method in methods) or detector not in DETECTORS:
        return
    with contextlib.suppress(ValueError, TypeError):  # what is wrong with a range is told elsewhere
        searched = space(values.get("search", {}), methods, detector)
        for name, distribution in searched.items():
            if not num_grid_values(distribution):
                yield f"search.{name}: a grid needs choices, `{{values: [...]}}` or a `step`, but got a range"
        if (points := math.prod(map(num_grid_values, searched.values()))) > MAX_POINTS:
            yield f"search: a grid must have at most {MAX_POINTS} points, but has {points:.3g}"


def _each_method_problems(values: Mapping[str, Any]) -> Iterator[str]:
    if not values.get("each_method"):
        return
    if len(methods := values.get("method", ())) == 1:
        yield f"each_method: acts only with several methods, but there is {methods[0]}"
    if values.get("sampler") == "grid":
        yield "each_method: a grid has each combination once, whatever its method; one of the two must go"
    scheduler = values.get("scheduler")
    if scheduler and scheduler.name not in (None, "none"):
        yield f"scheduler.name: {scheduler.name} would stop methods for each other; with each_method it must be `none`"


def _idle_keys(values: Mapping[str, Any]) -> Iterator[str]:
    """Keys of the scheduler that do nothing; `none` switches it off with all of them."""
    scheduler = values.get("scheduler")
    if scheduler and scheduler.name != "none":
        name = scheduler.name or "asha"
        for key in sorted(scheduler.model_fields_set - {"name"}):
            if name not in ACTS_WITH[key]:
                yield f"scheduler.{key}: acts only with {' or '.join(ACTS_WITH[key])}, but the scheduler is {name}"


def _scheduler_problems(values: Mapping[str, Any], increments: int | None) -> Iterator[str]:
    scheduler, training = values.get("scheduler"), values.get("training")
    if increments is None or scheduler is None or training is None or values.get("detector") not in DETECTORS:
        return
    end = increments * (training.epochs or DETECTORS[values["detector"]].recipe.epochs)
    if scheduler.name != "none" and scheduler.grace and scheduler.grace >= end > 0:
        yield f"scheduler.grace: `grace < {end}` (epochs of all incremental steps) must hold, but got {scheduler.grace}"


def _population_problems(values: Mapping[str, Any]) -> Iterator[str]:
    """Population-based training changes numbers on the way; what comes and goes with another's value it cannot."""
    scheduler = values.get("scheduler")
    if not scheduler or scheduler.name != "pbt":
        return
    if values.get("scenarios"):
        yield "scheduler.name: pbt trains one scenario, but there are several"
    if len(values.get("method", ())) > 1:
        yield "scheduler.name: pbt trains one method, but there are several"
    if values.get("max_concurrent"):
        yield "max_concurrent: pbt takes turns with as many trials as the cluster holds; it must go"
    if values.get("warm_start"):
        yield "warm_start: acts only with another scheduler than pbt"
    for key in ("hours", "core_hours", "gpu_hours", "patience"):
        if values.get("budget") and getattr(values["budget"], key):
            yield f"budget.{key}: acts only with another scheduler than pbt, whose trials all begin at once"
    if values.get("sampler") == "grid":
        yield "sampler: a population needs ranges, but got grid"
    if values.get("resources") and values["resources"].devices > 1:
        yield "resources.gpu: pbt trains on one device, but got several"


def _budget_problems(values: Mapping[str, Any]) -> Iterator[str]:
    budget, resources = values.get("budget"), values.get("resources")
    if budget and budget.gpu_hours and resources and not resources.gpu:
        yield "budget.gpu_hours: acts only where `resources.gpu` is above 0"
    if values.get("pooled") == "rank" and len(values.get("objective", ())) > 1:
        yield "pooled: `rank` is of one objective, but there are several"
    if values.get("seeds", 1) > 1 and len(values.get("objective", ())) > 1:
        yield "seeds: leaders are ranked by one objective, but there are several"
    if budget and budget.patience and len(values.get("objective", ())) > 1:
        yield "budget.patience: acts only with one objective"
