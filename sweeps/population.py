"""Population-based training: the worst trials go on from the best, with loss weights and rate a little changed.

Jaderberg et al., arXiv 1711.09846. Tune's scheduler takes no search algorithm beside it: the trials' first points are
asked of the sweep's search beforehand, and a listener tells the study how they fare.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
from ray import tune
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining
from ray.tune.search.basic_variant import BasicVariantGenerator

from search_spaces.distributions import Choice, Distribution, IntUniform, LogUniform, Uniform
from sweeps.searcher import IncrementalSearch
from sweeps.spec import SweepSpec
from trainables.tune import OBJECTIVE, PROGRESS

AT_START = ("warmup_iters",)  # what acts in the first iterations of a step alone


def population(spec: SweepSpec) -> PopulationBasedTraining:
    """The scheduler of a sweep's population; half of what Tune perturbs it draws anew."""
    random.seed(spec.seed)  # Tune perturbs with Python's and NumPy's global generators
    np.random.seed(spec.seed)
    mutations: dict[str, dict[str, Any]] = {}
    for name, distribution in perturbed(spec).items():
        owner, _, parameter = name.partition("/")
        mutations.setdefault(owner, {})[parameter] = _domain(distribution)
    return PopulationBasedTraining(
        time_attr=PROGRESS,
        metric=OBJECTIVE,
        mode=spec.objective.direction,
        perturbation_interval=spec.scheduler.interval,
        hyperparam_mutations=mutations,
        custom_explore_fn=_Inside(perturbed(spec)),
        log_config=False,
    )


def perturbed(spec: SweepSpec) -> dict[str, Distribution]:
    """What may change in mid-training: every number searched that acts after a step's first iterations."""
    return {
        name: distribution
        for name, distribution in spec.space.items()
        if not isinstance(distribution, Choice) and name.partition("/")[2] not in AT_START
    }


def first_generation(spec: SweepSpec, search: IncrementalSearch) -> tuple[BasicVariantGenerator, dict[str, Any]]:
    """The generator of the population's first points, and the space that Tune wants beside it."""
    points = [search.suggest(str(number)) for number in range(spec.trials)]
    owners: dict[str, dict[str, Any]] = {}
    for name, distribution in spec.space.items():
        owner, _, parameter = name.partition("/")
        owners.setdefault(owner, {})[parameter] = _domain(distribution)
    return BasicVariantGenerator(points_to_evaluate=points), owners


class Listener(Callback):
    """Tells the study how a population fares; a trial's place in Tune's list is its number there."""

    def __init__(self, search: IncrementalSearch) -> None:
        self._search = search

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Report the value at its place on the clock."""
        self._search.on_trial_result(str(trials.index(trial)), result)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Tell the end."""
        self._search.on_trial_complete(str(trials.index(trial)), trial.last_result)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Tell the failure."""
        self._search.on_trial_complete(str(trials.index(trial)), None, error=True)

    def get_state(self) -> dict[str, Any]:
        """What Tune's snapshot holds: how far the study has come."""
        return {"place": self._search.place}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to the snapshot: a trial that ended after it may now go on from another one."""
        self._search.go_back(state["place"])

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: a resumed sweep brings its own listener."""
        return {}


class _Inside:
    """Keeps what Tune perturbs inside its range, and whole numbers whole."""

    def __init__(self, distributions: Mapping[str, Distribution]) -> None:
        self._distributions = distributions

    def __call__(self, config: dict[str, Any]) -> dict[str, Any]:
        for name, distribution in self._distributions.items():
            owner, _, parameter = name.partition("/")
            config[owner][parameter] = _clipped(distribution, config[owner][parameter])
        return config


def _clipped(distribution: Distribution, value: float) -> float:
    assert not isinstance(distribution, Choice)
    value = min(max(value, distribution.low), distribution.high)
    if isinstance(distribution, IntUniform):
        return round(value)
    if step := distribution.step:
        return distribution.low + round((value - distribution.low) / step) * step
    return float(value)


def _domain(distribution: Distribution) -> Any:
    """The range in Tune's terms."""
    if isinstance(distribution, Choice):
        return tune.choice(list(distribution.values))
    if isinstance(distribution, IntUniform):
        kind = tune.lograndint if distribution.log else tune.randint
        return kind(distribution.low, distribution.high + 1)
    if isinstance(distribution, LogUniform):
        return tune.loguniform(distribution.low, distribution.high)
    assert isinstance(distribution, Uniform)
    return tune.uniform(distribution.low, distribution.high)
