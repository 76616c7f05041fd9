"""Tune's snapshots of a search. Tune writes each over the one before, so the last whole one is kept beside them."""

from __future__ import annotations

import json
import logging
import shutil
from hashlib import sha256
from pathlib import Path

from ray import tune

from trainables.errors import CheckpointError
from trainables.files import written_whole

BEGIN_AGAIN = "delete the sweep's folder `tune`, and its search begins again: what is trained stays in the store"
STATE, SEARCHER = "experiment_state-*.json", "searcher-state-*.pkl"
SEARCHED = (STATE, "search_gen_state-*.json", SEARCHER)
POPULATION = (STATE, "basic-variant-state-*.json")

_log = logging.getLogger(__name__)


def sealed(content: bytes) -> bytes:
    """`content` behind its digest."""
    return sha256(content).digest() + content


def unsealed(path: Path) -> bytes:
    """What was sealed.

    Raises:
        CheckpointError: the file is not as it was written.
    """
    whole, size = path.read_bytes(), sha256().digest_size
    if sha256(whole[size:]).digest() != whole[:size]:
        raise CheckpointError(str(path), [f"is broken; {BEGIN_AGAIN}"])
    return whole[size:]


def keep_snapshot(folder: Path) -> None:
    """Keep the snapshot that a sweep's folder has, if it is whole, before Tune writes the next one over it."""
    if _fault(folder / "tune"):
        return
    with written_whole(_kept(folder)) as aside:
        aside.mkdir()
        for file in _newest(folder / "tune"):
            shutil.copy2(file, aside)
        shutil.rmtree(_kept(folder), ignore_errors=True)


def restorable(folder: Path) -> bool:
    """Whether Tune has a state to go on from; a driver killed in the first seconds of a search leaves none. Where the
    newest one is torn, the kept one takes its place.

    Raises:
        CheckpointError: the newest state is torn, and none is kept: from it Tune would start afresh without a word.
    """
    experiment = folder / "tune"
    if not (_newest(experiment) or _newest(_kept(folder))) or not tune.Tuner.can_restore(str(experiment)):
        return False
    if fault := _fault(experiment):
        if _fault(_kept(folder)):
            raise CheckpointError(str(experiment), [f"{fault}; {BEGIN_AGAIN}"])
        _log.warning("%s: %s; going on from the snapshot before", experiment, fault)
        for file in _newest(experiment):
            file.unlink()
        for file in _newest(_kept(folder)):
            with written_whole(experiment / file.name) as aside:
                shutil.copy2(file, aside)
    return True


def _kept(folder: Path) -> Path:
    return folder / "snapshot"


def _newest(experiment: Path) -> list[Path]:
    """Of each part the newest file."""
    found = (max(experiment.glob(part), default=None) for part in _parts(experiment))
    return [file for file in found if file]


def _parts(experiment: Path) -> tuple[str, ...]:
    """What a snapshot consists of: a population is drawn by Tune's own generator."""
    return POPULATION if any(experiment.glob(POPULATION[1])) else SEARCHED


def _fault(experiment: Path) -> str:
    """Why a snapshot cannot be gone on from, in words; empty where it can."""
    files = _newest(experiment)
    if len(files) < len(parts := _parts(experiment)):
        return f"has {', '.join(file.name for file in files) or 'nothing'} of {', '.join(parts)}"
    if len({file.stem[-len("2026-01-01_00-00-00") :] for file in files}) > 1:
        return f"{', '.join(file.name for file in files)} are of different drivers"
    for file in files:
        try:
            if file.match(STATE):
                json.loads(file.read_bytes())
            elif file.match(SEARCHER):
                unsealed(file)
        except (ValueError, CheckpointError) as error:
            return f"{file.name} is torn ({error})"
    return next((f"{file.name} is empty" for file in files if not file.stat().st_size), "")
