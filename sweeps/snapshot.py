"""Tune's snapshots of a search. Tune writes the files of each over those of the one before, and then copies them into
the sweep's folder, in any order: a driver that dies meanwhile leaves a mixture. The last whole one is kept beside them,
in one file.
"""

from __future__ import annotations

import io
import logging
import tarfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from trainables.errors import CheckpointError
from trainables.files import written_whole

BEGIN_AGAIN = "delete the sweep's folder `tune`, and its search begins again: what is trained stays in the store"
KEPT = "snapshot.tar"
STATE = "experiment_state-*.json"
REST = ("search_gen_state-*.json", "searcher-state-*.pkl", "basic-variant-state-*.json", "callback-states-*.pkl")

_log = logging.getLogger(__name__)


class Snapshots(tune.Callback):
    """Keeps each snapshot of a sweep's search as soon as Tune has written the whole of it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._kept_ns = folder, 0
        self._state: Path | None = None

    def on_step_end(self, iteration: int, trials: Sequence[Trial], **info: Any) -> None:
        """Look whether there is a new one: Tune writes in some steps of its loop, ten seconds or more apart."""
        if trials and trials[0].storage:
            self._look(Path(trials[0].storage.experiment_driver_staging_path))

    def on_experiment_end(self, trials: Sequence[Trial], **info: Any) -> None:
        """The last one, which is written after the last step."""
        self.on_step_end(0, trials)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: a resumed sweep brings its own."""
        return {}

    def _look(self, staging: Path) -> None:
        try:
            self._state = self._state or max(staging.glob(STATE), default=None)
            written_ns = _time(self._state) if self._state else 0
            if written_ns != self._kept_ns and keep_snapshot(self._folder, staging):
                self._kept_ns = written_ns
        except OSError as error:
            _log.warning("%s: %s; trying again", self._folder / KEPT, error)


def keep_snapshot(folder: Path, staging: Path) -> bool:
    """Keep the snapshot that Tune has written into `staging`, behind its digest; False if it is not whole."""
    state, *rest = [max(staging.glob(part), default=None) for part in (STATE, *REST)]
    files = [file for file in rest if file]
    # Tune writes the state first. A search has two files beside it, and so has a population.
    if not state or len(files) < 2 or min(map(_time, files)) < _time(state):
        return False
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for file in (state, *files):
            archive.add(file, file.name)
    content = packed.getvalue()
    with written_whole(folder / KEPT) as aside:
        aside.write_bytes(sha256(content).digest() + content)
    return True


def put_back(folder: Path) -> bool:
    """Put the last whole snapshot where Tune looks for it; False if there is none, as after a driver that was killed in
    the first seconds of a search.

    Raises:
        CheckpointError: there was one, but it is lost or broken: without a word Tune would start afresh, or worse.
    """
    experiment, kept = folder / "tune", folder / KEPT
    if not experiment.is_dir():
        return False
    if not kept.exists():
        if any((folder / "trials").glob("*/events.jsonl")):
            raise CheckpointError(str(kept), [f"must be there, as trials have reported; {BEGIN_AGAIN}"])
        return False
    content, size = kept.read_bytes(), sha256().digest_size
    if sha256(content[size:]).digest() != content[:size]:
        raise CheckpointError(str(kept), [f"is broken; {BEGIN_AGAIN}"])
    if not tune.Tuner.can_restore(str(experiment)):
        raise CheckpointError(str(experiment), [f"must have Tune's tuner.pkl; {BEGIN_AGAIN}"])
    for part in (STATE, *REST):
        for file in experiment.glob(part):
            file.unlink()
    with tarfile.open(fileobj=io.BytesIO(content[size:])) as archive:
        archive.extractall(experiment, filter="data")
    return True


def _time(file: Path) -> int:
    return file.stat().st_mtime_ns
