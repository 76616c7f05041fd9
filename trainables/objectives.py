"""What a sweep aims at and what it must hold, as functions of a trial's events; needs no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainables.metrics import DIRECTIONS

COSTS = ("time_train_s", "params_trainable", "params_total", "extra_memory_mb")
"""Facts of a step that a sweep can aim at or bound: seconds of training, numbers of parameters, and MB held beside the
student: a teacher's parameters in float32, and what is replayed."""

DIRECTION_OF = {**DIRECTIONS, **dict.fromkeys(COSTS, "min")}
"""Every metric that an objective or a constraint can name, and which way it is better."""


@dataclass(frozen=True)
class Objective:
    """A metric at the end of a chain, or over its increments.

    Attributes:
        over: `last`; `mean` or `sum` of the increments so far; or a weight for each increment, for their weighted mean.
            By default seconds are summed, of all else the last counts.
    """

    metric: str
    over: str | tuple[float, ...] = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "over", self.over or _usual(self.metric))

    @property
    def direction(self) -> str:
        """`max` or `min`: which way it is better."""
        return DIRECTION_OF[self.metric]

    @property
    def name(self) -> str:
        """What records call it: `ap_all`, `mean_ap_all`, `weighted_ap_all`."""
        kind = self.over if isinstance(self.over, str) else "weighted"
        return self.metric if kind == _usual(self.metric) else f"{kind}_{self.metric}"

    def value(self, events: Sequence[Mapping[str, Any]]) -> float:
        """Its value at the last of a trial's events, nan where it has none.

        Before the end of an increment, that increment counts as it is scored on the way.
        """
        rows = list(_rows(events))
        if self.over == "last" or not rows:
            return _number(rows[-1] if rows else _row(events[-1]), self.metric)
        values = [_number(row, self.metric) for row in rows]
        if self.over == "sum":
            return sum(values)
        weights = [1.0] * len(values) if isinstance(self.over, str) else self.over[: len(values)]
        total = sum(weights)
        return sum(w * v for w, v in zip(weights, values, strict=True) if w) / total if total else math.nan


@dataclass(frozen=True)
class Constraint:
    """A metric that must not be above (`<=`) or below (`>=`) a bound at the end of a chain."""

    metric: str
    sign: str
    bound: float

    @property
    def name(self) -> str:
        """What records call its excess: `forgetting_max`, `ap_old_min`."""
        return f"{self.metric}_{'max' if self.sign == '<=' else 'min'}"

    def __str__(self) -> str:
        return f"{self.metric} {self.sign} {self.bound:g}"

    def excess(self, events: Sequence[Mapping[str, Any]]) -> float:
        """How far the bound is missed at the last of a trial's events; held at 0 and below, nan where not known."""
        beyond = Objective(self.metric).value(events) - self.bound
        return beyond if self.sign == "<=" else -beyond


@dataclass(frozen=True)
class Aim:
    """All that a trial is judged by; the first objective is the one that schedulers see.

    Attributes:
        pooled: how a trial over several scenarios counts: `mean` of them, `worst`, or `rank` (while it runs, their
            mean). A constraint must hold in each.
    """

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()
    pooled: str = ""

    @property
    def line(self) -> str:
        """In words, for records: `ap_new, forgetting; ap_old >= 0.5`."""
        aims = ", ".join(objective.name for objective in self.objectives)
        over = f"{self.pooled} over scenarios of {aims}" if self.pooled else aims
        return "; ".join([over, *map(str, self.constraints)])

    def values(self, events: Sequence[Mapping[str, Any]]) -> list[float]:
        """The objectives at the last of a trial's events."""
        groups = _counted(events)
        return [self.pool([one.value(group) for group in groups], one) for one in self.objectives]

    def parts(self, events: Sequence[Mapping[str, Any]]) -> list[float]:
        """The first objective in each scenario that has begun, in their order."""
        return [self.objectives[0].value(group) for group in _counted(events)]

    def pool(self, values: list[float], objective: Objective | None = None) -> float:
        """One value of those of several scenarios, of an objective (the first)."""
        objective = objective or self.objectives[0]
        if self.pooled == "worst":
            return min(values) if objective.direction == "max" else max(values)
        return sum(values) / len(values)

    def excesses(self, events: Sequence[Mapping[str, Any]]) -> list[float]:
        """The constraints at the last of a trial's events; see `Constraint.excess`."""
        groups = _counted(events)
        return [max(constraint.excess(group) for group in groups) for constraint in self.constraints]


def trained(event: Mapping[str, Any]) -> bool:
    """Whether the trial itself trained the step of an event; the base step is everybody's."""
    return bool(event["step"] >= event.get("first_step", 1))


def _counted(events: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The events of each scenario in which an increment has begun; of the first one where none has."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        groups.setdefault(event.get("scenario", ""), []).append(event)
    first, *_ = groups.values()
    return [group for group in groups.values() if trained(group[-1])] or [first]


def _usual(metric: str) -> str:
    return "sum" if metric.startswith("time_") else "last"


def _rows(events: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, float]]:
    """Metrics and facts of each increment so far, the last one perhaps on the way."""
    for number, event in enumerate(events):
        if trained(event) and ("classes" in event or number == len(events) - 1):
            yield _row(event)


def _row(event: Mapping[str, Any]) -> dict[str, float]:
    row = {name.removesuffix("_mid"): value for name, value in event["metrics"].items()} | event.get("facts", {})
    if "time_train_s" in row:  # a step that the store had already costs what it once did
        row["time_train_s"] += row.get("time_saved_steps_s", 0.0)
    return row


def _number(row: Mapping[str, float], name: str) -> float:
    return float(row.get(name, math.nan))
