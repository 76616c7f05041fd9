"""How configurations are proposed: Optuna's samplers by the names that a sweep file uses. Optuna loads when asked."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search_spaces.distributions import Choice, Distribution, IntUniform, LogUniform, Scalar, Uniform
from search_spaces.params import METHOD, When
from trainables.objectives import Aim

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import StudyDirection

    from sweeps.spec import SweepSpec


@dataclass(frozen=True)
class Sampler:
    """What a sampler can do.

    Attributes:
        objectives: whether it takes several; constraints: whether it takes any.
    """

    build: Callable[[SweepSpec], BaseSampler]
    objectives: bool = True
    constraints: bool = True


GP_STARTUP_TRIALS = 2  # with more it is slower on simulated trials of the digit scenes, whatever their budget


def startup_trials(spec: SweepSpec) -> int:
    """How many of a sweep's trials are drawn before a model of what they found proposes the next ones."""
    share = len(spec.methods) if spec.each_method else 1
    return max(4, spec.trials // share // 4)


def sampler_of(spec: SweepSpec) -> BaseSampler:
    """The sampler that a sweep names, where it searches each method by itself one for each."""
    from optuna.exceptions import ExperimentalWarning

    from sweeps.method_sampler import EachMethodSampler

    build = SAMPLERS[spec.sampler].build
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if spec.each_method:
            return EachMethodSampler(METHOD, {method: build(spec) for method in spec.methods})
        return build(spec)


def _tpe(spec: SweepSpec) -> BaseSampler:
    from optuna.samplers import TPESampler

    one = len(spec.aim.objectives) == 1  # Optuna takes no joint model of several by itself
    return TPESampler(
        seed=spec.seed,
        n_startup_trials=startup_trials(spec),
        multivariate=one,
        group=one and bool(spec.conditions),  # for parameters that come and go
    )


def _gp(spec: SweepSpec) -> BaseSampler:
    from sweeps.gaussian_process import StoppedTrialsGPSampler

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # its torch shares the cores with trials; workers are there already
    return StoppedTrialsGPSampler(seed=spec.seed, n_startup_trials=GP_STARTUP_TRIALS)


def _cmaes(spec: SweepSpec) -> BaseSampler:
    from optuna.samplers import CmaEsSampler

    return CmaEsSampler(seed=spec.seed, n_startup_trials=startup_trials(spec), warn_independent_sampling=False)


def _genetic(name: str) -> Callable[[SweepSpec], BaseSampler]:
    def build(spec: SweepSpec) -> BaseSampler:
        from optuna import samplers

        # Optuna's own 50 would never see a second generation in a sweep of detectors.
        sampler: BaseSampler = getattr(samplers, name)(
            seed=spec.seed, population_size=max(4, min(50, spec.trials // 4))
        )
        return sampler

    return build


def _qmc(spec: SweepSpec) -> BaseSampler:
    from optuna.samplers import QMCSampler

    return QMCSampler(seed=spec.seed, scramble=True, warn_independent_sampling=False, warn_asynchronous_seeding=False)


def _random(spec: SweepSpec) -> BaseSampler:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=spec.seed)


SAMPLERS = {
    "tpe": Sampler(_tpe),
    "gp": Sampler(_gp),
    "cmaes": Sampler(_cmaes, objectives=False, constraints=False),
    "nsga2": Sampler(_genetic("NSGAIISampler")),
    "nsga3": Sampler(_genetic("NSGAIIISampler")),
    "qmc": Sampler(_qmc),
    "random": Sampler(_random),
    "grid": Sampler(_random),  # its points are told beforehand; see `grid`
}


def grid(space: Mapping[str, Distribution], conditions: Mapping[str, list[When]]) -> Iterator[dict[str, Scalar]]:
    """Every combination of the values searched; a parameter that does not act is left out."""
    seen = set()
    for values in itertools.product(*map(grid_values, space.values())):
        point = acting(dict(zip(space, values, strict=True)), conditions)
        if (key := tuple(point.items())) not in seen:
            seen.add(key)
            yield point


def num_grid_values(distribution: Distribution) -> float:
    """How many values a distribution has that is a finite set; 0 of a range."""
    if isinstance(distribution, Choice):
        return len(distribution.values)
    if isinstance(distribution, IntUniform | LogUniform) or not distribution.step:
        return 0
    return (distribution.high - distribution.low) / distribution.step + 1e-9 + 1


def grid_values(distribution: Distribution) -> list[Scalar]:
    """The values of a distribution that is a finite set."""
    if isinstance(distribution, Choice):
        return list(distribution.values)
    assert isinstance(distribution, Uniform)
    assert distribution.step
    return [distribution.low + index * distribution.step for index in range(int(num_grid_values(distribution)))]


def acting(point: Mapping[str, Any], conditions: Mapping[str, list[When]]) -> dict[str, Any]:
    """A point without the parameters that do not act in it."""
    kept: dict[str, Any] = {}
    for name, value in point.items():  # what others depend on comes first
        if all(kept.get(when.parent) in when.values for when in conditions.get(name, ())):
            kept[name] = value
    return kept


def optuna_distribution(distribution: Distribution) -> BaseDistribution:
    """The same range in Optuna's terms."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, Choice):
        return CategoricalDistribution(distribution.values)
    if isinstance(distribution, IntUniform):
        return IntDistribution(distribution.low, distribution.high, log=distribution.log)
    log = isinstance(distribution, LogUniform)
    return FloatDistribution(distribution.low, distribution.high, log=log, step=None if log else distribution.step)


def directions(aim: Aim) -> list[StudyDirection]:
    """Which way each objective is better, in Optuna's terms."""
    from optuna.study import StudyDirection

    kinds = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}
    return [kinds[objective.direction] for objective in aim.objectives]
