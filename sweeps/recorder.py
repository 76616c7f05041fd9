"""The one listener of a search: hands each event of Tune's loop to the records and to the display."""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.utils.util import flatten_dict

from search_spaces.distributions import Scalar
from search_spaces.params import OPTIM
from sweeps import results
from sweeps.budget import Spending
from sweeps.progress import Display, TrialCount, shown
from sweeps.show import AP_COLUMNS, parameters
from sweeps.spec import SweepSpec
from sweeps.tracking import Tracker, Verdict
from trainables.config import Segment, TrialConfig, under_schedule
from trainables.errors import masked
from trainables.journal import read, read_one
from trainables.objectives import trained
from trainables.tune import (
    EVENT,
    EXCESSES,
    FAILURE,
    OBJECTIVE,
    PARTS,
    PROGRESS,
    VALUES,
    events_file,
    sound,
    with_parameters,
)  # fmt: skip


def scope_tags(config: TrialConfig) -> dict[str, str]:
    """The tags that every run of a chain carries."""
    return {"scenario": config.scenario.name, "detector": config.detector, "method": config.method}


def flat_params(config: TrialConfig) -> dict[str, Scalar]:
    """Everything that a person may want to compare between trials, under flat names."""
    return {
        **{f"{config.method}/{name}": value for name, value in config.params.items()},
        **{f"{OPTIM}/{name}": value for name, value in config.optim.items()},
        "seed": config.seed,
        "config_id": config.config_id,
    }


def record_event(tracker: Tracker, trial_id: str, event: Mapping[str, Any]) -> None:
    """Record one event of `trainables.trial.Report`."""
    if "classes" in event:
        metrics = {**event["metrics"], **event["facts"]}
        tracker.log_step(
            trial_id, event["step"], metrics, event["timestamp_ms"], event["classes"], event["ap_matrix"],
            event.get("scenario", ""), event.get("scored") if trained(event) else None,
        )  # fmt: skip
    else:
        tracker.log_epoch(trial_id, event["metrics"], event["progress"], event["timestamp_ms"])


@dataclass(frozen=True, kw_only=True)
class Ended(results.Trial):
    """A trial that has ended, with its configuration; its parameters are there alone."""

    config: TrialConfig


class Recorder(Callback):
    """Tune's callback. Nothing it does can end the search: the tracker keeps its failures to itself.

    Tune only ever adds to its list of trials: a trial's place in it is its number. A restored list begins with what
    ended last, and is put into the order in which its trials were made.

    Attributes:
        ended: when the search is over, the trials that ended, under whatever driver.
        spent_s: then, the seconds that these trials took together.
    """

    def __init__(
        self,
        spec: SweepSpec,
        bases: Mapping[str, TrialConfig],
        tracker: Tracker,
        display: Display,
        count: TrialCount,
    ) -> None:
        self.spec, self.bases, self.tracker, self.display, self.count = spec, bases, tracker, display, count
        self.spending = Spending(spec)
        self.numbers: dict[str, int] = {}
        self.spent_s, self._told_s = 0.0, 0.0
        self.ended: list[Ended] = []

    @property
    def complete(self) -> bool:
        """When the search is over: whether it came to its own end, and was not interrupted."""
        return len(self.ended) >= self.spec.trials or self.spending.exhausted() is not None

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Open the trial's run."""
        self._meet(trials[len(self.numbers) :])
        config = with_parameters(self.bases, trial.config)
        number = self.numbers[trial.trial_id]
        tags: dict[str, Scalar] = {**scope_tags(config), "role": "search", "number": number}
        if self.spec.aim.pooled:
            tags |= {"scenario": ", ".join(one.name for one in self.spec.scenarios), "pooled": self.spec.aim.pooled}
        name = f"trial {number}: {parameters(self._searched(trial))}"
        self.tracker.start_trial(trial.trial_id, flat_params(config), tags, now_ms(), name)
        self.count.start(trial.trial_id)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Record the event behind a result: Tune hears of clock and objective alone."""
        self.spending.spend(trial.trial_id, result)
        if FAILURE not in result:
            event = read_one(self._events_of(trial), result[EVENT])
            if trained(event) and "classes" in event:
                event["metrics"] |= self._judged(result)
            record_event(self.tracker, trial.trial_id, event)
            if "scenario" in event and "classes" in event:
                self.tracker.log_trial(trial.trial_id, self._of_scenarios(event, result), {}, now_ms())
            if "schedule" in event:
                self.tracker.log_trial(trial.trial_id, {}, {"schedule": json.dumps(event["schedule"])}, now_ms())

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Say how far the search is, once a second."""
        if (time_s := time.monotonic()) - self._told_s >= 1:
            self._told_s = time_s
            self.display.now(self._line())

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Close the trial's run as finished or, before the end of the clock, as stopped."""
        self._end(trial, verdict_of(trial, self.spec.max_progress))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Close the trial's run as failed."""
        self._end(trial, "failed")

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Say again how each trial ended, which an earlier driver may not have recorded, and drop what Tune forgot."""
        self.display.now("saving")
        self._meet(trials[len(self.numbers) :])
        for trial in trials:
            if trial.is_finished() and trial.trial_id not in self.count.running:
                verdict = verdict_of(trial, self.spec.max_progress)
                self.spent_s += (trial.last_result or {}).get("time_total_s", 0.0)
                self.ended.append(self._ended(trial, verdict))
                self.tracker.end_trial(trial.trial_id, verdict, now_ms(), _reason(trial, verdict))
        self.tracker.keep_trials(list(self.numbers))
        for folder in (self.spec.folder / "trials").glob("*"):
            if folder.name not in self.numbers:
                shutil.rmtree(folder)

    def _searched(self, trial: Trial) -> dict[str, Scalar]:
        """What the search has chosen, by flat names."""
        chosen = flatten_dict(trial.config)
        return {name: chosen[name] for name in self.spec.space if name in chosen}

    def _events_of(self, trial: Trial) -> Path:
        return events_file(self.spec.folder / "trials", trial.trial_id)

    def _ended(self, trial: Trial, verdict: Verdict) -> Ended:
        result, config = trial.last_result or {}, with_parameters(self.bases, trial.config)
        if self.spec.scheduler.name == "pbt" and VALUES in result:
            acted = read(self._events_of(trial))[-1].get("schedule", ())
            config = under_schedule(config, [Segment(**one) for one in acted]) if acted else config
        judged = self._judged(result) | self._parts(result) if VALUES in result else {}
        return Ended(
            self.numbers[trial.trial_id], trial.trial_id, verdict, config.method, {}, judged, 0.0,
            pooled=self.spec.aim.pooled, message=_reason(trial, verdict), config=config,
        )  # fmt: skip

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: a resumed sweep brings its own recorder."""
        return {}

    def _meet(self, trials: list[Trial]) -> None:
        """Number trials that are new to this driver, and count those that ended under an earlier one."""
        made = sorted(trials, key=_made)
        self.numbers |= {trial.trial_id: number for number, trial in enumerate(made, len(self.numbers))}
        earlier = [trial for trial in trials if trial.is_finished()]
        for trial in sorted(earlier, key=lambda trial: (trial.last_result or {}).get("timestamp", 0)):
            verdict = verdict_of(trial, self.spec.max_progress)
            self._count(trial, verdict)
            self._spend(trial, verdict)
        if earlier:
            self.spending.restart()

    def _judged(self, result: Mapping[str, Any]) -> dict[str, float]:
        """Objectives and constraints as metrics, for those who read the records."""
        aim = self.spec.aim
        values = {f"{results.AIMED}{one.name}": v for one, v in zip(aim.objectives, result[VALUES], strict=True)}
        return values | {
            f"{results.EXCESS}{one.name}": v for one, v in zip(aim.constraints, result[EXCESSES], strict=True)
        }

    def _parts(self, result: Mapping[str, Any]) -> dict[str, float]:
        """The first objective in each of several scenarios."""
        names = [f"{results.PART}{results.metric_name(one.name)}" for one in self.spec.scenarios]
        return dict(zip(names, result[PARTS], strict=False)) if self.spec.aim.pooled else {}

    def _of_scenarios(self, event: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, float]:
        """What a trial over several scenarios tells of the one whose step has ended, and of all together."""
        name = results.metric_name(event["scenario"])
        own = {f"{name}/{metric}": v for metric, v in event["metrics"].items() if metric in AP_COLUMNS}
        own |= {f"{results.PART}{name}": result[PARTS][-1]} if trained(event) else {}
        return own | (self._judged(result) if trained(event) else {})

    def _line(self) -> str:
        return ", ".join(filter(None, (self.count.line(), self.spending.line())))

    def _end(self, trial: Trial, verdict: Verdict) -> None:
        self._spend(trial, verdict)
        reason, result = _reason(trial, verdict), trial.last_result or {}
        self.tracker.log_trial(trial.trial_id, {PROGRESS: result.get(PROGRESS, 0)}, {}, now_ms())
        self.tracker.end_trial(trial.trial_id, verdict, now_ms(), reason)
        label = self._count(trial, verdict)
        at = "" if verdict == "finished" else f" after {result.get(PROGRESS, 0)} of {self.spec.max_progress} epochs"
        values = f"  {self._values(result)}" if VALUES in result else ""
        self.display.say(f"{label:>9} {verdict}{at}{values}{f'  {reason}' if reason else ''}", self._line())

    def _spend(self, trial: Trial, verdict: Verdict) -> None:
        result = trial.last_result or {}
        if verdict == "failed":
            self.spending.spend(trial.trial_id, result)
            self.spending.fail(trial.trial_id)
        else:
            (self.spending.end if verdict == "finished" else self.spending.stop)(trial.trial_id, result)

    def _values(self, result: Mapping[str, Any]) -> str:
        """The objectives for people, and which constraints are missed."""
        aim = self.spec.aim
        told = [f"{one.name} {shown(one.metric, v):>5}" for one, v in zip(aim.objectives, result[VALUES], strict=True)]
        missed = [f"not {one}" for one, v in zip(aim.constraints, result[EXCESSES], strict=True) if v > 0]
        return ", ".join(told + missed)

    def _count(self, trial: Trial, verdict: Verdict) -> str:
        result = trial.last_result or {}
        value = float(result.get(OBJECTIVE, math.nan))
        if len(self.spec.aim.objectives) > 1 or any(excess > 0 for excess in result.get(EXCESSES, ())):
            value = math.nan  # it is not the best of anything
        label = f"trial {self.numbers[trial.trial_id]}"
        self.count.end(trial.trial_id, verdict, value, label)
        return label


def _made(trial: Trial) -> int:
    """Grows with each trial that Tune makes, over all drivers."""
    count = re.match(r"\d*", trial.experiment_tag)
    return int(count[0]) if count and count[0] else 0


def verdict_of(trial: Trial, max_progress: int) -> Verdict:
    """How a trial ended, in our words: Tune calls a stopped or a failed trial terminated like any other."""
    result = trial.last_result or {}
    if trial.status == Trial.ERROR or FAILURE in result:
        return "failed"
    if result.get(PROGRESS, 0) < max_progress:
        return "stopped"
    return "finished" if sound(result) else "failed"


def _reason(trial: Trial, verdict: Verdict) -> str:
    """Why a trial failed; nothing where it did not."""
    if verdict != "failed":
        return ""
    if error := trial.get_error():
        return masked(str(error).strip().splitlines()[-1])  # of a traceback
    return str((trial.last_result or {}).get(FAILURE, "every objective and constraint must be finite, but one is not"))


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 10**6
