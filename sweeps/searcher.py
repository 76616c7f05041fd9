"""Optuna's samplers behind Ray Tune, with what their meeting point loses put right."""

from __future__ import annotations

import contextlib
import math
import pickle
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import Trial, TrialState
from ray.tune.search import Searcher
from ray.tune.utils.util import unflatten_dict

from search_spaces.distributions import Scalar
from search_spaces.params import METHOD
from sweeps.budget import Spending
from sweeps.results import mean_ranks
from sweeps.samplers import directions, optuna_distribution, sampler_of
from sweeps.snapshot import BEGIN_AGAIN
from sweeps.spec import SweepSpec
from sweeps.study import study_file, study_storage
from sweeps.warm_start import Known, Observation
from trainables.errors import CheckpointError
from trainables.journal import cut
from trainables.tune import EXCESSES, OBJECTIVE, PARTS, PROGRESS, VALUES, sound


class IncrementalSearch(Searcher):
    """A sweep's search: proposes points of its space to Tune and tells its Optuna study how trials fare.

    Beside `ray.tune.search.optuna.OptunaSearch` (ray 2.60) it knows the sweep's clock, constraints, parameters that
    exist only under another's value, and budgets. A trial stopped before the end of the clock is told as pruned with
    all its values, never as complete. A restore takes the study back to Tune's snapshot: what came after is played
    again, maybe to another end, and no trial stays in the study that Tune does not know.
    """

    def __init__(self, spec: SweepSpec, known: Known | None = None) -> None:
        """A search over the sweep's study; one that has trials is gone on with, and they are known by their numbers.

        Args:
            known: what a new study begins with, beside the sweep's first points.
        """
        super().__init__(metric=OBJECTIVE, mode=spec.objective.direction)
        self._spec = spec
        self._live: dict[str, Trial] = {}
        self._parts: list[list[float]] = []
        self._spending = Spending(spec)
        self._open(sampler_of(spec))
        there = self._study.get_trials(deepcopy=False)
        self._trials = {str(trial.number): trial.number for trial in there}
        if not there:
            self._begin(known or Known())

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The configuration of a trial, as `trainables.tune.with_parameters` takes it; `FINISHED` at a budget's end."""
        if trial_id not in self._trials:
            if self._spending.exhausted():
                finished: str = Searcher.FINISHED
                return finished
            self._live[trial_id] = self._asked()
            self._trials[trial_id] = self._live[trial_id].number
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Fixed parameter .* is out of range")  # a preset may be
            point = self._point(self._trial(trial_id))
        nested: dict[str, Any] = unflatten_dict(point)
        return nested

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Report an intermediate value at its place on the clock; a trial that started again repeats some."""
        self._spending.spend(trial_id, result)
        if len(self._spec.aim.objectives) > 1:
            return  # Optuna knows intermediate values of one objective alone
        if result[PROGRESS] > 0 and math.isfinite(result[OBJECTIVE]):
            with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="The reported value is ignored")
                self._trial(trial_id).report(result[OBJECTIVE], result[PROGRESS])

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Tell the study how a trial ended."""
        told = dict(result or {})
        if error or not sound(told):
            self._study.tell(self._trials[trial_id], state=TrialState.FAIL, skip_if_finished=True)
            self._spending.fail(trial_id)
        else:
            self._tell(trial_id, told)
        self._live.pop(trial_id, None)

    def save(self, checkpoint_path: str) -> None:
        """Keep which trial is which, and where the sampler, the budget and the study are."""
        state = (self._trials, self._study.sampler, self._spending, self._parts, self.place)
        Path(checkpoint_path).write_bytes(pickle.dumps(state))

    def restore(self, checkpoint_path: str) -> None:
        """Go back to where `save` was called.

        Raises:
            CheckpointError: the study is not as it was then.
        """
        # A file that Tune and this class wrote into the sweep's own folder; `sweeps.snapshot` knows its digest.
        content = Path(checkpoint_path).read_bytes()
        self._trials, sampler, self._spending, self._parts, place = pickle.loads(content)
        if place > self.place:
            problem = f"has {self.place} bytes, but had {place} at Tune's last snapshot; {BEGIN_AGAIN}"
            raise CheckpointError(str(study_file(self._spec.folder)), [problem])
        self._spending.restart()
        self.go_back(place, sampler)

    @property
    def place(self) -> int:
        """How far the study has come, for `go_back`."""
        return study_file(self._spec.folder).stat().st_size

    def go_back(self, place: int, sampler: optuna.samplers.BaseSampler | None = None) -> None:
        """Take the study, and the sampler if one is given, back to an earlier place."""
        cut(study_file(self._spec.folder), place)
        self._live = {}
        self._open(sampler or self._study.sampler)

    def __getstate__(self) -> dict[str, Any]:
        """All but the study and its open trials, which are read anew."""
        return {**self.__dict__, "_study": self._study.sampler, "_live": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open(state["_study"])

    def _open(self, sampler: optuna.samplers.BaseSampler) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(
            study_name=self._spec.name,
            storage=study_storage(self._spec.folder),
            sampler=sampler,
            directions=directions(self._spec.aim),
            load_if_exists=True,
        )

    def _asked(self) -> Trial:
        """The next trial, where methods are searched each by itself of the method that had the fewest."""
        if self._spec.each_method:
            there = self._study.get_trials(deepcopy=False)
            if not any(trial.state == TrialState.WAITING for trial in there):
                had = Counter(trial.system_attrs["fixed_params"][METHOD] for trial in there)
                self._study.enqueue_trial({METHOD: min(self._spec.methods, key=lambda method: had[method])})
        return self._study.ask()

    def _begin(self, known: Known) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._study.set_metric_names([one.name for one in self._spec.aim.objectives])
        for observation in known.observations:
            self._observe(observation)
        for point in self._spec.first_points():
            self._study.enqueue_trial(dict(point))
        for guess in known.guesses:
            self._study.enqueue_trial(dict(guess), skip_if_exists=True)

    def _observe(self, observation: Observation) -> None:
        """Put a trial of an earlier sweep into the study."""
        self._study.enqueue_trial(dict(observation.point))
        trial = self._study.ask()
        self._point(trial)
        for constraint, excess in zip(self._spec.aim.constraints, observation.excesses, strict=True):
            trial.set_constraint(str(constraint), excess)
        self._study.tell(trial, observation.values)

    def _tell(self, trial_id: str, told: Mapping[str, Any]) -> None:
        stopped = told[PROGRESS] < self._spec.max_progress
        if stopped:
            self.on_trial_result(trial_id, told)  # Tune keeps the result that stopped the trial to itself
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The constraint value is ignored")
            for constraint, excess in zip(self._spec.aim.constraints, told[EXCESSES], strict=True):
                self._trial(trial_id).set_constraint(str(constraint), excess)
        if stopped:
            self._study.tell(self._trials[trial_id], state=TrialState.PRUNED, skip_if_finished=True)
            self._spending.stop(trial_id, told)
        else:
            values = [self._rank(told[PARTS])] if self._spec.aim.pooled == "rank" else told[VALUES]
            self._study.tell(self._trials[trial_id], values, skip_if_finished=True)
            self._spending.end(trial_id, told)

    def _rank(self, parts: Sequence[float]) -> float:
        """The trial's rank among those that have finished, mean of the scenarios; see `sweeps.results.mean_ranks`."""
        self._parts.append(list(parts))
        return mean_ranks(self._parts)[-1]

    def _trial(self, trial_id: str) -> Trial:
        if trial_id not in self._live:  # an earlier driver asked for it
            known = self._study.get_trials(deepcopy=False)[self._trials[trial_id]]
            self._live[trial_id] = Trial(self._study, known._trial_id)
        return self._live[trial_id]

    def _point(self, trial: Trial) -> dict[str, Scalar]:
        point: dict[str, Scalar] = {}
        for name, distribution in self._spec.space.items():
            if all(point.get(when.parent) in when.values for when in self._spec.conditions.get(name, ())):
                point[name] = trial._suggest(name, optuna_distribution(distribution))
        return point
