"""A sweep's Optuna study: one file that its driver appends to."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState

from sweeps.snapshot import BEGIN_AGAIN
from trainables.errors import CheckpointError
from trainables.journal import Journal, lines


def study_file(folder: Path) -> Path:
    """Where a sweep's study is; Optuna reads it with `JournalStorage(JournalFileBackend(path))`."""
    return folder / "optuna.jsonl"


def check_study(folder: Path) -> None:
    """Nothing, where every line of a sweep's study can be read.

    Raises:
        CheckpointError: one cannot, and the first of them is named.
    """
    path = study_file(folder)
    if not path.exists():
        raise CheckpointError(str(path), [f"must be there, as Tune's state is; {BEGIN_AGAIN}"])
    for number, (line, _) in enumerate(lines(path), start=1):
        try:
            json.loads(line)
        except ValueError as error:
            raise CheckpointError(str(path), [f"line {number} cannot be read ({error}); {BEGIN_AGAIN}"]) from error


def study_storage(folder: Path) -> JournalStorage:
    """The study's storage for the one driver that writes it."""
    return StudyJournal(OneDriver(study_file(folder)))


class StudyJournal(JournalStorage):  # type: ignore[misc, unused-ignore]
    """Optuna's journal storage of one study, quick where a search asks each time: for all trials, and for waiting ones.

    Reads private parts of optuna 5.0's JournalStorage, which looks at every trial for either.
    """

    def __init__(self, backend: BaseJournalBackend) -> None:
        super().__init__(backend)
        self._begun = 0  # so many first trials wait no longer

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials by number, see `optuna.storages.BaseStorage`."""
        if deepcopy or states not in (None, (TrialState.WAITING,)):
            return super().get_all_trials(study_id, deepcopy, states)  # type: ignore[no-any-return, unused-ignore]
        with self._thread_lock:
            self._sync_with_backend()
            known = self._replay_result._trials
            ids = self._replay_result._study_id_to_trial_ids[study_id]
            if states is None:
                return [known[trial_id] for trial_id in ids]
            while self._begun < len(ids) and known[ids[self._begun]].state != TrialState.WAITING:
                self._begun += 1
            later = [known[trial_id] for trial_id in ids[self._begun :]]
            return [trial for trial in later if trial.state == TrialState.WAITING]


class OneDriver(BaseJournalBackend):  # type: ignore[misc, unused-ignore]
    """Optuna's journal without what several writers need: no lock, no reading back, no wait for the disk.

    The file is that of Optuna's own `JournalFileBackend`. An operation outlives a killed driver, not a power failure:
    then Tune's last snapshot, which waits for no disk either, decides what is played again.
    """

    def __init__(self, path: Path) -> None:
        self._journal = Journal(path)
        self._fresh: list[dict[str, Any]] = []  # the last of the `_count` operations: those not yet read
        self._count = sum(1 for _ in lines(path))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write operations of the study."""
        self._fresh += [json.loads(self._journal.append(log)) for log in logs]
        self._count += len(logs)

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """The operations from one number on."""
        known = self._count - len(self._fresh)
        if log_number_from < known:
            return [json.loads(line) for line, _ in islice(lines(self._journal.path), log_number_from, None)]
        self._fresh = self._fresh[log_number_from - known :]
        return self._fresh

    def __getstate__(self) -> Path:
        """The path: Tune's snapshots hold where the study is, not what is in it."""
        return self._journal.path

    def __setstate__(self, path: Path) -> None:
        OneDriver.__init__(self, path)
