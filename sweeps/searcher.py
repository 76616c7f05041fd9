"""Optuna's sampler behind Ray Tune, with what their meeting point loses put right."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from ray.tune.search.optuna import OptunaSearch

from search_spaces.distributions import Choice, Distribution, IntUniform, LogUniform, Scalar
from sweeps.spec import SweepSpec
from sweeps.study import study_storage
from trainables.tune import OBJECTIVE, PROGRESS


def optuna_distribution(distribution: Distribution) -> BaseDistribution:
    """The same range in Optuna's terms."""
    if isinstance(distribution, Choice):
        return CategoricalDistribution(distribution.values)
    if isinstance(distribution, IntUniform):
        return IntDistribution(distribution.low, distribution.high, log=distribution.log)
    if isinstance(distribution, LogUniform):
        return FloatDistribution(distribution.low, distribution.high, log=True)
    return FloatDistribution(distribution.low, distribution.high, step=distribution.step)


class IncrementalSearch(OptunaSearch):
    """TPE over a sweep's space; trial 0 is the method's defaults.

    Unlike its parent: the clock is `progress`; a trial stopped before the end of the clock is told as pruned, never as
    complete; after a restore, a result that the study has already is let pass, and trials that the study holds as
    running and Tune does not know are failed. Overrides private parts of ray 2.60's OptunaSearch.
    """

    def __init__(self, spec: SweepSpec, points: Sequence[Mapping[str, Scalar]] = ()) -> None:
        """A new search, or the frame of one to restore.

        Args:
            points: configurations, by flat names, to try after trial 0 and before any other.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.max_progress = spec.max_progress
        startup = max(4, spec.trials // 4)
        super().__init__(
            space={name: optuna_distribution(distribution) for name, distribution in spec.space.items()},
            metric=OBJECTIVE,
            mode=spec.mode,
            points_to_evaluate=[dict(spec.defaults()), *map(dict, points)],
            sampler=optuna.samplers.TPESampler(seed=spec.seed, n_startup_trials=startup, multivariate=True),
            study_name=spec.name,
            storage=study_storage(spec.folder),
        )

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Report an intermediate value at its place on the clock; a trial that started again repeats some."""
        if result[PROGRESS] > 0 and math.isfinite(result[OBJECTIVE]):
            with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="The reported value is ignored")
                self._ot_trials[trial_id].report(result[OBJECTIVE], result[PROGRESS])

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Tell the study how a trial ended."""
        trial, value = self._ot_trials[trial_id], (result or {}).get(OBJECTIVE, math.nan)
        if error or result is None or not math.isfinite(value):
            self._ot_study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        elif result[PROGRESS] < self.max_progress:
            self.on_trial_result(trial_id, result)  # Tune keeps the result that stopped the trial to itself
            self._ot_study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
        else:
            self._ot_study.tell(trial, value, skip_if_finished=True)
        self._completed_trials.add(trial_id)

    def restore(self, checkpoint_path: str) -> None:
        """Restore, and fail the trials that were asked for after the last snapshot."""
        super().restore(checkpoint_path)
        known = {trial.number for trial in self._ot_trials.values()}
        for trial in self._ot_study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number not in known:
                self._ot_study.tell(trial.number, state=TrialState.FAIL)
