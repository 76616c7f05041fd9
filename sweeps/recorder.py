"""The one listener of a search: hands each event of Tune's loop to the records and to the display."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from search_spaces.distributions import Scalar
from sweeps.progress import Display, TrialCount
from sweeps.spec import SweepSpec
from sweeps.tracking import Tracker, Verdict
from trainables.config import TrialConfig
from trainables.tune import FAILURE, OBJECTIVE, PROGRESS, events_file, with_parameters


def scope_tags(config: TrialConfig) -> dict[str, str]:
    """The tags that every run of a chain carries."""
    return {"scenario": config.scenario.name, "detector": config.detector, "method": config.method}


def flat_params(config: TrialConfig) -> dict[str, Scalar]:
    """Everything that a person may want to compare between trials, under flat names."""
    return {
        **{f"method/{name}": value for name, value in config.params.items()},
        **{f"optim/{name}": value for name, value in config.optim.items()},
        "seed": config.seed,
        "config_id": config.config_id,
    }


def record_event(tracker: Tracker, trial_id: str, event: Mapping[str, Any]) -> None:
    """Record one event of `trainables.trial.Report`."""
    if "classes" in event:
        metrics = {**event["metrics"], **event["facts"]}
        tracker.log_step(trial_id, event["step"], metrics, event["timestamp_ms"], event["classes"], event["ap_matrix"])
    else:
        tracker.log_epoch(trial_id, event["metrics"], event["progress"], event["timestamp_ms"])


class Recorder(Callback):
    """Tune's callback. Nothing it does can end the search: the tracker keeps its failures to itself.

    Tune only ever adds to its list of trials: a trial's place in it is its number.

    Attributes:
        ended: when the search is over, the configuration and verdict of each trial that ended, under whatever driver.
        spent_s: then, the seconds that these trials took together.
    """

    def __init__(
        self, spec: SweepSpec, base: TrialConfig, tracker: Tracker, display: Display, count: TrialCount
    ) -> None:
        self.spec, self.base, self.tracker, self.display, self.count = spec, base, tracker, display, count
        self.numbers: dict[str, int] = {}
        self.spent_s = 0.0
        self.ended: list[tuple[TrialConfig, Verdict]] = []

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Open the trial's run."""
        self._meet(trials[len(self.numbers) :])
        config = with_parameters(self.base, trial.config)
        number = self.numbers[trial.trial_id]
        tags: dict[str, Scalar] = {**scope_tags(config), "role": "search", "number": number}
        self.tracker.start_trial(trial.trial_id, flat_params(config), tags, now_ms(), f"trial {number}")
        self.count.start(trial.trial_id)
        self.display.now(self.count.line())

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Record the event behind a result: Tune hears of clock and objective alone."""
        if FAILURE not in result:
            events = json.loads(events_file(self.spec.folder / "trials", trial.trial_id).read_text())
            record_event(self.tracker, trial.trial_id, next(e for e in events if e[PROGRESS] == result[PROGRESS]))
        self.display.now(self.count.line())

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Close the trial's run as finished or, before the end of the clock, as stopped."""
        self._end(trial, verdict_of(trial, self.spec.max_progress))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Close the trial's run as failed."""
        self._end(trial, "failed")

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Say again how each trial ended, for those that an earlier driver saw end and could not record."""
        for trial in trials:
            if trial.is_finished() and trial.trial_id not in self.count.running:
                verdict = verdict_of(trial, self.spec.max_progress)
                self.spent_s += (trial.last_result or {}).get("time_total_s", 0.0)
                self.ended.append((with_parameters(self.base, trial.config), verdict))
                self.tracker.end_trial(trial.trial_id, verdict, now_ms(), _reason(trial, verdict))

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: a resumed sweep brings its own recorder."""
        return {}

    def _meet(self, trials: list[Trial]) -> None:
        """Number trials that are new to this driver, and count those that ended under an earlier one."""
        for trial in trials:
            self.numbers[trial.trial_id] = len(self.numbers)
            if trial.is_finished():
                self._count(trial, verdict_of(trial, self.spec.max_progress))

    def _end(self, trial: Trial, verdict: Verdict) -> None:
        reason, result = _reason(trial, verdict), trial.last_result or {}
        self.tracker.end_trial(trial.trial_id, verdict, now_ms(), reason)
        value, label = self._count(trial, verdict)
        at = "" if verdict == "finished" else f" after {result.get(PROGRESS, 0)} of {self.spec.max_progress} epochs"
        shown = f"  {self.spec.objective} {100 * value:5.1f}" if value == value else ""
        self.display.say(f"{label:>9} {verdict}{at}{shown}{f'  {reason}' if reason else ''}  | {self.count.line()}")

    def _count(self, trial: Trial, verdict: Verdict) -> tuple[float, str]:
        value = float((trial.last_result or {}).get(OBJECTIVE, math.nan))
        label = f"trial {self.numbers[trial.trial_id]}"
        self.count.end(trial.trial_id, verdict, value, label)
        return value, label


def verdict_of(trial: Trial, max_progress: int) -> Verdict:
    """How a trial ended, in our words: Tune calls a stopped or a failed trial terminated like any other."""
    result = trial.last_result or {}
    if trial.status == Trial.ERROR or FAILURE in result:
        return "failed"
    if result.get(PROGRESS, 0) < max_progress:
        return "stopped"
    return "finished" if math.isfinite(result[OBJECTIVE]) else "failed"


def _reason(trial: Trial, verdict: Verdict) -> str:
    """Why a trial failed; nothing where it did not."""
    if verdict != "failed":
        return ""
    if error := trial.get_error():
        return str(getattr(error, "cause", error)).strip().splitlines()[-1]
    return str((trial.last_result or {}).get(FAILURE, "the objective must be finite, but is not"))


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 10**6
