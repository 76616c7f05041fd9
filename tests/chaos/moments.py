"""When a fault strikes: each moment is seen in the files that a sweep leaves."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

POLL_S = 0.002
PATIENCE_S = 300.0


def _a_trial(folder: Path) -> bool:
    return any(folder.glob("runs/sweeps/small/tune/tune_trial_*"))


def _mid_step(folder: Path) -> bool:
    return any(folder.glob("runs/store/partial/steps/*/progress.json"))


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "references are built": _mid_step,
    "before the first report": _a_trial,
    "in mid-step": lambda folder: _a_trial(folder) and _mid_step(folder),
    "a checkpoint is written": lambda folder: (
        _a_trial(folder) and any(folder.glob("runs/store/partial/steps/*/.state.pt.*"))
    ),
    "between steps": lambda folder: any(
        b'"step":1' in path.read_bytes() for path in folder.glob("runs/sweeps/small/trials/*/events.jsonl")
    ),
    "promotion": _mid_step,
}


def wait_for(moment: str, folder: Path, process: subprocess.Popen[str]) -> None:
    """Return as soon as a sweep that runs in `folder` is there.

    Raises:
        AssertionError: it ended before, or takes too long.
    """
    until = time.monotonic() + PATIENCE_S
    while not MOMENTS[moment](folder):
        assert process.poll() is None, f"the sweep ended before: {moment}"
        assert time.monotonic() < until, f"the sweep did not come so far in {PATIENCE_S:.0f} s: {moment}"
        time.sleep(POLL_S)
