"""When trials are stopped early: Ray Tune's schedulers on the sweep's clock.

All trials of a sweep have the same steps of the same length, so equal `progress` is the same point of the same step:
rungs never compare a trial in one step with a trial in another.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from sweeps.population import population
from sweeps.spec import SweepSpec
from trainables.objectives import Objective
from trainables.tune import EXCESSES, FAILURE, OBJECTIVE, PARTS, PROGRESS

MIN_SAMPLES = 3  # trials that a median is taken of


def scheduler_of(spec: SweepSpec, bounds: Mapping[str, float] | None = None) -> TrialScheduler:
    """The scheduler that a sweep names; over pooled scenarios it also stops what can no longer win.

    Args:
        bounds: of each scenario, the AP of all classes of its joint reference, as far as it is known.
    """
    inner = _named(spec)
    return PooledStopping(spec, bounds or {}, inner) if spec.aim.pooled in ("mean", "worst") else inner


def _named(spec: SweepSpec) -> TrialScheduler:
    common = {"time_attr": PROGRESS, "metric": OBJECTIVE, "mode": spec.objective.direction}
    first, name = next(iter(rungs(spec)), None), spec.scheduler.name
    if name == "none" or first is None:
        return NoStopping()
    if name == "pbt":
        return population(spec)
    if name == "median":
        return StepMedianRule(spec.epochs, **common, grace_period=first)
    np.random.seed(spec.seed)  # Tune draws a trial's bracket from numpy's global generator
    return Halving(
        **common,
        max_t=spec.max_progress,
        grace_period=first,
        reduction_factor=spec.scheduler.reduction_factor,
        brackets=min(spec.scheduler.brackets, len(rungs(spec))) if name == "hyperband" else 1,
    )


def rungs(spec: SweepSpec) -> tuple[int, ...]:
    """Values of the clock, before the end, at which trials are compared.

    By default the first is the end of the first increment, so that a scenario of two steps has none. The next are each
    `reduction_factor` times the one before; of `median`, every epoch is one, of `pbt`, every `interval`.
    """
    value, end = spec.scheduler.grace or spec.epochs, spec.max_progress
    if spec.scheduler.name == "none":
        return ()
    if spec.scheduler.name == "median":
        return tuple(range(value, end))
    if spec.scheduler.name == "pbt":
        return tuple(range(spec.scheduler.interval, end, spec.scheduler.interval))
    found = []
    while value < end:
        found.append(value)
        value *= spec.scheduler.reduction_factor
    return tuple(found)


class InTurn:
    """Leaves it to Tune which trial is next, where none is ever paused.

    Tune's own schedulers (ray 2.60) name the first that waits. Where that one's process is still starting, it takes
    over the process of a trial that ends, and its own is ended: slots whose processes start more slowly than trials
    end elsewhere would stay empty to the last trial.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """None."""
        return


class NoStopping(InTurn, FIFOScheduler):
    """Every trial comes to its end."""


class Halving(InTurn, AsyncHyperBandScheduler):
    """ASHA, in one bracket or several."""


class PooledStopping(TrialScheduler):
    """Stops a trial over several scenarios as soon as it cannot be the best any more, whatever the rest may bring.

    What a scenario may bring at most is taken from its joint reference, which learns everything at once, where AP of
    all classes is the aim; else from the metric's range. All else is the scheduler's inside.
    """

    def __init__(self, spec: SweepSpec, bounds: Mapping[str, float], inner: TrialScheduler) -> None:
        super().__init__()
        self._inner, self._aim = inner, spec.aim
        ideal = 1.0 if spec.objective.direction == "max" else -1.0
        known = bounds if spec.objective == Objective("ap_all") else {}
        self._ideals = [known.get(scenario.name, ideal) for scenario in spec.scenarios]
        steps = [spec.epochs * scenario.num_trained for scenario in spec.scenarios]
        self._ends = list(itertools.accumulate(steps))
        self._best: float | None = None

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """The scheduler's decision, or to stop."""
        decision: str = self._inner.on_trial_result(tune_controller, trial, result)
        if FAILURE in result:
            return decision
        if result[PROGRESS] >= self._ends[-1]:
            self._finished(result)
        elif decision == TrialScheduler.CONTINUE and self._hopeless(result):
            return str(TrialScheduler.STOP)
        return decision

    def _finished(self, result: Mapping[str, Any]) -> None:
        value, held = result[OBJECTIVE], all(excess <= 0 for excess in result[EXCESSES])
        if held and value == value and (self._best is None or self._better(value, self._best)):
            self._best = value

    def _hopeless(self, result: Mapping[str, Any]) -> bool:
        done = sum(end <= result[PROGRESS] for end in self._ends)
        if self._best is None or not done:
            return False
        at_most = self._aim.pool([*result[PARTS][:done], *self._ideals[done:]])
        return not self._better(at_most, self._best)

    def _better(self, one: float, other: float) -> bool:
        return one > other if self._aim.objectives[0].direction == "max" else one < other

    def __getattr__(self, name: str) -> Any:
        if name == "_inner":  # not there yet while it is unpickled
            raise AttributeError(name)
        return getattr(self._inner, name)

    def set_search_properties(self, *args: Any, **kwargs: Any) -> bool:
        """As inside."""
        return bool(self._inner.set_search_properties(*args, **kwargs))

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """As inside."""
        self._inner.on_trial_add(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """As inside."""
        self._inner.on_trial_error(tune_controller, trial)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """As inside."""
        self._inner.on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """As inside."""
        self._inner.on_trial_remove(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """As inside."""
        return self._inner.choose_trial_to_run(tune_controller)

    def debug_string(self) -> str:
        """As inside."""
        return str(self._inner.debug_string())


class StepMedianRule(InTurn, MedianStoppingRule):
    """Stops a trial whose best value inside its present step is below the median of the others' means in that step.

    Tune's own rule takes best and means over the whole trial, in which each step has other classes to score. Overrides
    private parts of ray 2.60's rule.
    """

    def __init__(self, epochs: int, **options: Any) -> None:
        """`epochs` of each step; the options are the parent's."""
        super().__init__(**options, min_samples_required=MIN_SAMPLES)
        self._epochs = epochs

    def _on_insufficient_samples(self, tune_controller: Any, trial: Trial, time: float) -> str:
        return str(TrialScheduler.CONTINUE)  # Tune's own would pause it, for others to be compared with

    def _running_mean(self, trial: Trial, time: float) -> float:
        values = self._inside_step(trial, time)
        return float(np.mean(values)) if values else np.nan

    def _best_result(self, trial: Trial) -> float:
        best: float = self._compare_op(self._inside_step(trial, self._results[trial][-1][PROGRESS]))
        return best

    def _inside_step(self, trial: Trial, time: float) -> list[float]:
        before = (time - 1) // self._epochs * self._epochs
        return [result[OBJECTIVE] for result in self._results[trial] if before < result[PROGRESS] <= time]
