"""Optuna's Gaussian process, which learns from complete trials alone, and from stopped ones as well."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from statistics import median
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import GPSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState


class StoppedTrialsGPSampler(GPSampler):
    """`GPSampler` (optuna 5.0) to which a stopped trial is one that ended where it was heading.

    That is its last value and what the complete trials gained from there on, their median. Without stopped trials the
    model knows nothing of where it is bad, and proposes it again.
    """

    def _sample_relative_impl(
        self,
        study: Study,
        completed_trials: list[FrozenTrial],
        running_trials: list[FrozenTrial],
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        stopped = study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
        known = [trial for trial in stopped if search_space.keys() <= trial.params.keys()]
        headed = [ended for trial in known if (ended := _ended(trial, completed_trials))]
        chosen: dict[str, Any] = super()._sample_relative_impl(
            study, completed_trials + headed, running_trials, search_space
        )
        return chosen


def _ended(trial: FrozenTrial, completed: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """A stopped trial as if it had ended; None where no complete one was looked at when it was stopped."""
    if not trial.intermediate_values:
        return None
    at = max(trial.intermediate_values)
    gains = [
        one.value - one.intermediate_values[at]
        for one in completed
        if one.value is not None and at in one.intermediate_values
    ]
    if not gains:
        return None
    ended = copy.copy(trial)
    ended.values = [trial.intermediate_values[at] + median(gains)]
    return ended
