"""What a search has spent of its budget, and whether it is over."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from sweeps.costs import HOURS
from sweeps.spec import SweepSpec
from trainables.tune import EXCESSES, OBJECTIVE

HOPELESS = 5
"""So many failed trials, and none that did not fail, end a search."""


class Spending:
    """Fed with a search's results as they come; trials under way when a budget ends come to their own end."""

    def __init__(self, spec: SweepSpec) -> None:
        self._budget, self._maximise = spec.budget, spec.objective.direction == "max"
        self._units = {"core": float(spec.resources.cpu), "gpu": float(spec.resources.gpu)}
        self._began = time.time()
        self._seconds: dict[str, float] = {}
        self._best: float | None = None
        self._since_best = 0
        self._failed: set[str] = set()
        self._all_fail = True

    def spend(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """A trial has come so far."""
        self._seconds[trial_id] = float(result.get("time_total_s", 0.0))

    def end(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """A trial came to its end."""
        self.stop(trial_id, result)
        value = result[OBJECTIVE]
        better = self._best is None or (value > self._best if self._maximise else value < self._best)
        if better and all(excess <= 0 for excess in result[EXCESSES]):
            self._best, self._since_best = value, 0
        else:
            self._since_best += 1

    def stop(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """A trial was stopped before its end."""
        self.spend(trial_id, result)
        self._all_fail = False

    def fail(self, trial_id: str) -> None:
        """A trial failed."""
        self._failed.add(trial_id)

    @property
    def hopeless(self) -> bool:
        """Whether every trial fails."""
        return self._all_fail and len(self._failed) >= HOPELESS

    def exhausted(self) -> str | None:
        """Which budget is spent, in words; None while there is some left."""
        if self.hopeless:
            return "patience with trials that fail"
        return next((f"{limit:g} {unit}" for unit, limit, left in self._left() if left <= 0), None)

    def line(self) -> str:
        """What is left of each budget, for the display; empty where there is none."""
        return ", ".join(f"{max(left, 0):.2g} of {limit:g} {unit} left" for unit, limit, left in self._left())

    def restart(self) -> None:
        """Another driver goes on: its hours begin now, and a person may have mended what made trials fail."""
        self._began = time.time()
        self._failed.clear()

    def _left(self) -> Iterator[tuple[str, float, float]]:
        """Unit, limit and what is left of each budget."""
        budget = self._budget
        if budget.hours:
            yield "hours", budget.hours, budget.hours - (time.time() - self._began) / 3600
        for unit, limit in (("core", budget.core_hours), ("gpu", budget.gpu_hours)):
            if limit:
                yield HOURS[unit], limit, limit - sum(self._seconds.values()) / 3600 * self._units[unit]
        if budget.patience:
            yield "trials without a better one", budget.patience, budget.patience - self._since_best
