"""Run the trial given on the command line as `repr((config, runtime))`, to be killed by a test."""

from __future__ import annotations

import sys
from pathlib import Path, PosixPath

from trainables.config import Runtime, TrialConfig
from trainables.datasets import Split, Splits
from trainables.scenarios import Scenario
from trainables.trial import run_trial

NAMES = {kind.__name__: kind for kind in (Path, PosixPath, Runtime, Scenario, Split, Splits, TrialConfig)}

if __name__ == "__main__":
    config, runtime = eval(sys.argv[1], NAMES)
    run_trial(config, runtime, print)
