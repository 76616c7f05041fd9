"""A sweep's study in a database, for Optuna's dashboard and whoever else reads studies while the sweep runs.

The search itself keeps its study in a journal, which costs its driver far less than a database. The
process that writes to MLflow copies it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from sweeps.study import study_file


class StudyCopy:
    """The copy of one study. Each `update` brings it to where the journal is, whatever an earlier one left undone.

    Args:
        folder: of the sweep.
        url: of the database, as SQLAlchemy takes it.
    """

    def __init__(self, name: str, folder: Path, url: str) -> None:
        self._name, self._journal, self._url = name, study_file(folder), url
        self._source: optuna.Study | None = None
        self._storage: BaseStorage | None = None
        self._study_id = 0
        self._file = (0, 0)  # the journal that was last looked at: inode and size
        self._done = 0  # so many first trials are finished and copied

    def update(self) -> None:
        """Copy what is new.

        Raises:
            Exception: of SQLAlchemy or below it, where the database does not answer.
        """
        if not self._journal.exists():
            return
        found = self._journal.stat()
        if found.st_ino != self._file[0]:  # the search was begun anew or has gone back to a snapshot
            self._source, self._storage = None, None
        if found.st_size and (found.st_ino, found.st_size) != self._file:
            optuna.logging.set_verbosity(optuna.logging.ERROR)
            self._copy_trials()
            self._file = found.st_ino, found.st_size

    def _copy_trials(self) -> None:
        if self._source is None:
            backend = JournalFileBackend(str(self._journal))
            self._source = optuna.load_study(study_name=self._name, storage=JournalStorage(backend))
        if not (trials := self._source.get_trials(deepcopy=False)):
            return
        storage = self._storage or self._opened(self._source, trials)
        copies = storage.get_all_trials(self._study_id, deepcopy=False)
        for trial in trials[self._done :]:
            if trial.state == TrialState.WAITING:
                return  # those after it have not begun either
            if trial.number < len(copies):
                _bring(storage, copies[trial.number], trial)
            else:
                storage.create_new_trial(self._study_id, template_trial=trial)
            if trial.state.is_finished() and trial.number == self._done:
                self._done += 1

    def _opened(self, source: optuna.Study, trials: list[FrozenTrial]) -> BaseStorage:
        """The database with this study in it; a copy of what this study never was, or is no longer, goes."""
        storage = RDBStorage(
            self._url, engine_kwargs={"connect_args": {"timeout": 30}} if _is_sqlite(self._url) else {}
        )
        copy = optuna.create_study(
            study_name=self._name, storage=storage, directions=source.directions, load_if_exists=True
        )
        if not _became(copy.get_trials(deepcopy=False), trials):
            optuna.delete_study(study_name=self._name, storage=storage)
            copy = optuna.create_study(study_name=self._name, storage=storage, directions=source.directions)
        if source.metric_names:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                copy.set_metric_names(source.metric_names)
        self._study_id, self._done, self._storage = copy._study_id, 0, storage
        return storage


def _is_sqlite(url: str) -> bool:
    return url.startswith("sqlite")


def _became(copies: Sequence[FrozenTrial], trials: Sequence[FrozenTrial]) -> bool:
    """Whether the trials are what the copies were once, or still are."""
    return len(copies) <= len(trials) and all(
        copy.datetime_start == trial.datetime_start
        and copy.intermediate_values.items() <= trial.intermediate_values.items()
        and (not copy.state.is_finished() or copy.state == trial.state)
        for copy, trial in zip(copies, trials, strict=False)
    )


def _bring(storage: BaseStorage, copy: FrozenTrial, trial: FrozenTrial) -> None:
    """Give a trial's copy what the trial has beyond it."""
    if copy.state.is_finished():
        return
    for name, distribution in trial.distributions.items():
        if name not in copy.params:
            value = distribution.to_internal_repr(trial.params[name])
            storage.set_trial_param(copy._trial_id, name, value, distribution)
    for key, attribute in trial.system_attrs.items():
        if copy.system_attrs.get(key) != attribute:
            storage.set_trial_system_attr(copy._trial_id, key, attribute)
    for step, value in trial.intermediate_values.items():
        if step not in copy.intermediate_values:
            storage.set_trial_intermediate_value(copy._trial_id, step, value)
    if trial.state.is_finished():
        storage.set_trial_state_values(copy._trial_id, trial.state, trial.values)
