"""A search in each of several methods: what is proposed to one follows from that one's own trials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState


class EachMethodSampler(BaseSampler):
    """A sampler for each value of one parameter, which every trial is asked for with (`Study.enqueue_trial`).

    To the sampler of one value the study seems to hold the trials with that value alone.
    """

    def __init__(self, name: str, samplers: Mapping[str, BaseSampler]) -> None:
        """`samplers` by the values of the parameter `name`."""
        self._name, self._samplers = name, dict(samplers)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """As the method's own sampler has it, without the method."""
        space = self._own(trial).infer_relative_search_space(self._seen_by(study, trial), trial)
        return {name: distribution for name, distribution in space.items() if name != self._name}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As the method's own sampler proposes it."""
        return self._own(trial).sample_relative(self._seen_by(study, trial), trial, search_space)

    def sample_independent(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        """As the method's own sampler proposes it."""
        return self._own(trial).sample_independent(self._seen_by(study, trial), trial, name, distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """As the method's own sampler does."""
        self._own(trial).before_trial(self._seen_by(study, trial), trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        """As the method's own sampler does."""
        self._own(trial).after_trial(self._seen_by(study, trial), trial, state, values)

    def _own(self, trial: FrozenTrial) -> BaseSampler:
        return self._samplers[self._value(trial)]

    def _value(self, trial: FrozenTrial) -> str:
        value: str = trial.system_attrs["fixed_params"][self._name]
        return value

    def _seen_by(self, study: Study, trial: FrozenTrial) -> Study:
        return _Part(study, lambda other: self._value(other) == self._value(trial))  # type: ignore[return-value]


class _Part:
    """A study of which only some trials are seen."""

    def __init__(self, study: Study, seen: Any) -> None:
        self._whole, self._seen = study, seen

    def get_trials(self, *args: Any, **kwargs: Any) -> list[FrozenTrial]:
        return [trial for trial in self._whole.get_trials(*args, **kwargs) if self._seen(trial)]

    def _get_trials(self, *args: Any, **kwargs: Any) -> list[FrozenTrial]:
        return [trial for trial in self._whole._get_trials(*args, **kwargs) if self._seen(trial)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)
