"""What a trial has behind it, as a Tune checkpoint: another trial can go on from there with other parameters.

Population-based training (Jaderberg et al., arXiv 1711.09846) lets weak trials copy strong ones in mid-training. A copy
holds the parameters that acted so far, what was reported, and the state of the step under way; finished steps are in
the store under those same parameters.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from trainables.config import Runtime, Segment, TrialConfig
from trainables.files import read_json, written_whole
from trainables.records import STATE_FILE, partial_step

HISTORY_FILE = "history.json"


@dataclass(frozen=True)
class History:
    """Parameters by the clock, and events, up to a checkpoint."""

    schedule: tuple[Segment, ...] = ()
    events: Sequence[Mapping[str, Any]] = ()

    @property
    def progress(self) -> int:
        """The clock at the checkpoint."""
        return int(self.events[-1]["progress"]) if self.events else 0

    def continued(self, config: TrialConfig) -> TrialConfig:
        """`config` after this history."""
        before = replace(config, schedule=self.schedule).segments(0, self.progress) if self.schedule else []
        if before and (before[-1].params, before[-1].optim) == (config.params, config.optim):
            before.pop()
        return replace(config, schedule=tuple(before))


def read_history(folder: Path) -> History:
    """The history in a checkpoint's folder."""
    told = read_json(folder / HISTORY_FILE)
    return History(tuple(Segment(**one) for one in told["schedule"]), tuple(told["events"]))


@contextmanager
def checkpoint_folder(config: TrialConfig, runtime: Runtime, events: Sequence[Mapping[str, Any]]) -> Iterator[Path]:
    """A folder with what a trial with `config` has behind it after `events`; it goes with the context."""
    progress = int(events[-1]["progress"])
    schedule = [asdict(one) for one in config.segments(0, progress)]
    with TemporaryDirectory() as folder:
        path = Path(folder)
        (path / HISTORY_FILE).write_text(json.dumps({"schedule": schedule, "events": list(events)}))
        state = _state_at(config, runtime, progress)
        if state.exists():
            shutil.copyfile(state, path / STATE_FILE)
        yield path


def adopt_state(folder: Path, config: TrialConfig, runtime: Runtime, progress: int) -> None:
    """Put the state of a checkpoint where the step under way looks for it, unless one is there."""
    state = _state_at(config, runtime, progress)
    if (folder / STATE_FILE).exists() and not state.exists():
        with written_whole(state) as aside:
            shutil.copyfile(folder / STATE_FILE, aside)


def _state_at(config: TrialConfig, runtime: Runtime, progress: int) -> Path:
    """The state of the step that is under way, or begins, at `progress`."""
    step = progress // config.epochs + config.first_step
    return partial_step(config, runtime, min(step, len(config.scenario.steps) - 1)) / STATE_FILE
