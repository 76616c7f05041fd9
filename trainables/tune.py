"""The Ray door: a trial as a Tune function, references as Ray tasks. torch and mmdet load inside the functions."""

from __future__ import annotations

import errno
import math
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from search_spaces.params import METHOD, OPTIM
from trainables.config import Runtime, TrialConfig
from trainables.devices import on_devices, report
from trainables.environment import printing_into
from trainables.errors import TrainingError, in_a_line, one_line
from trainables.files import written_whole
from trainables.history import adopt_state, checkpoint_folder, read_history
from trainables.journal import append, cut_broken_lines, line_of, read
from trainables.objectives import Aim
from trainables.scenarios import Scenario

OBJECTIVE = "objective"
VALUES, EXCESSES, PARTS, EVENT = "objectives", "excesses", "parts", "event"
PROGRESS = "progress"
FAILURE = "failure"
LOG = "log.txt"
"""Beside a trial's events: what its process printed, packages included."""
PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT)
WAITS_S = (5.0, 15.0, 60.0, 300.0)


def with_parameters(bases: Mapping[str, TrialConfig], chosen: Mapping[str, Any]) -> TrialConfig:
    """The configuration that the search chose.

    Args:
        bases: a configuration of each method that the sweep has.
        chosen: `{"method": "erd", "erd": {...}, "optim": {...}}`; the method can be left out where there is one.
    """
    base = bases[chosen.get(METHOD, next(iter(bases)))]
    params = {**base.params, **chosen.get(base.method, {})}
    return replace(base, params=params, optim={**base.optim, **chosen.get(OPTIM, {})})


def tune_trial(
    chosen: dict[str, Any],
    bases: Mapping[str, TrialConfig],
    runtime: Runtime,
    aim: Aim,
    folder: Path,
    copied: bool = False,
    scenarios: Sequence[Scenario] = (),
) -> None:
    """One trial under Ray Tune. What it has reported is kept beside it, so that a restart repeats no work.

    An error of its own (a loss that is not finite, no memory left, a bug) is the last thing it reports, as `FAILURE`:
    to raise would make Tune try again, in a new process, what ends the same way each time. A full disk, or a file
    system that went away, it waits for; then Tune tries again, as where a process or a node is lost.

    Args:
        chosen, bases: see `with_parameters`.
        aim: what the sweep judges a trial by.
        folder: of the sweep's trials, on a path that all nodes share.
        copied: whether trials go on from each other's checkpoints; see `trainables.history`.
        scenarios: that a trial runs one after another, in place of its configuration's.
    """
    from ray import tune
    from ray.exceptions import RayError

    from trainables.environment import release_memory

    config, file = with_parameters(bases, chosen), events_file(folder, tune.get_context().get_trial_id())

    def run() -> None:
        own = _gone_on(config, runtime, file) if copied else config
        held = held_file(file.parent.parent, file.parent.name)
        on_devices(own, runtime, _report_trial, own, runtime, aim, file, copied, scenarios, held=held)

    try:
        patiently(run)
    except Exception as error:
        if passing(error) or isinstance(error, RayError):  # one of several devices was lost
            raise
        with printing_into(file.with_name(LOG)):
            traceback.print_exc()
        progress = max((event[PROGRESS] for event in read(file)), default=0)
        tune.report({OBJECTIVE: math.nan, PROGRESS: progress, FAILURE: _in_words(error, file)})
    finally:  # Tune ends a stopped trial by raising in `report`
        if config.devices == 1:
            release_memory()


def _report_trial(
    config: TrialConfig, runtime: Runtime, aim: Aim, file: Path, copied: bool, scenarios: Sequence[Scenario]
) -> None:
    with printing_into(file.with_name(LOG)):
        from trainables.trial import run_trial

        reporter = Reporter(file, aim, config, runtime if copied else None)
        for scenario in scenarios or (config.scenario,):
            if scenarios:
                reporter.begin(replace(config, scenario=scenario))
            run_trial(reporter.config, runtime, reporter)


def passing(error: BaseException) -> bool:
    """Whether an error is of a disk or a file system that may come back, or says that it comes of one."""
    if isinstance(error, OSError) and error.errno in PASSING:
        return True
    return error.__cause__ is not None and passing(error.__cause__)


def patiently(run: Callable[[], None], waits_s: Sequence[float] = WAITS_S) -> None:
    """Run; while a disk is full or a file system away, wait and run again.

    Raises:
        Exception: of them, which were so still after all waits, or any other.
    """
    for wait in waits_s:
        try:
            return run()
        except Exception as error:
            if not passing(error):
                raise
            time.sleep(wait)
    return run()


def _in_words(error: Exception, events: Path) -> str:
    """Why a trial failed, in a line; where a person would want more, it names the file with the traceback."""
    if isinstance(error, TrainingError):
        return str(error)
    if isinstance(error, MemoryError) or "out of memory" in str(error):
        return f"out of memory: {in_a_line(error)}"
    return f"{one_line(error)} (see {events.with_name(LOG)})"


def _gone_on(config: TrialConfig, runtime: Runtime, events: Path) -> TrialConfig:
    """`config` after what the checkpoint that Tune hands over has behind it; its events become this trial's."""
    from ray import tune

    if (checkpoint := tune.get_checkpoint()) is None:
        return config
    with checkpoint.as_directory() as folder:
        history = read_history(Path(folder))
        config = history.continued(config)
        adopt_state(Path(folder), config, runtime, history.progress)
    known = list(history.events)
    if read(events)[: len(known)] != known:
        with written_whole(events) as aside:
            aside.write_bytes(b"".join(map(line_of, known)))
    return config


def sound(result: Mapping[str, Any]) -> bool:
    """Whether a trial's last result is one to learn from: objectives and constraints are there, and finite."""
    numbers = [result.get(OBJECTIVE, math.nan), *result.get(VALUES, ()), *result.get(EXCESSES, ())]
    return FAILURE not in result and all(map(math.isfinite, numbers))


def events_file(folder: Path, trial_id: str) -> Path:
    """The journal of what a trial reported; see `tune_trial`."""
    return folder / trial_id / "events.jsonl"


def held_file(folder: Path, trial_id: str) -> Path:
    """What Ray keeps for a trial of several devices; see `trainables.devices.release`."""
    return folder / trial_id / "held.txt"


class Reporter:
    """Keeps events, and tells Tune where the clock and the objective are.

    A trial that starts again says what it said before, and every listener knows it already.
    """

    def __init__(self, path: Path, aim: Aim, config: TrialConfig, copied_in: Runtime | None = None) -> None:
        """`copied_in`: where the trial runs, if others may go on from it."""
        self.aim, self.config, self.copied_in = aim, config, copied_in
        self._path, self._before, self._scenario = path, 0, ""
        cut_broken_lines(path)
        self.events: list[dict[str, Any]] = read(path)
        for number in range(len(self.events)):
            self._send(self.events[: number + 1])

    def begin(self, config: TrialConfig) -> None:
        """The next of several scenarios begins: its clock goes on where the one before ended."""
        if self._scenario:
            self._before += self.config.end
        self.config, self._scenario = config, config.scenario.name

    def __call__(self, event: dict[str, Any]) -> None:
        event = _finite(event)
        if self._scenario:
            event |= {PROGRESS: self._before + event[PROGRESS], "scenario": self._scenario}
        if self.config.schedule:
            acted = self.config.segments(0, self.config.end)
            event["schedule"] = [asdict(segment) for segment in acted]
        if _place(event) not in map(_place, self.events):
            self.events.append(event)
            append(self._path, event)
            self._send(self.events, self.copied_in)

    def _send(self, events: Sequence[Mapping[str, Any]], copied_in: Runtime | None = None) -> None:
        from ray import tune

        values, excesses = self.aim.values(events), self.aim.excesses(events)
        told = {OBJECTIVE: values[0], VALUES: values, EXCESSES: excesses, PROGRESS: events[-1][PROGRESS]}
        told |= {PARTS: self.aim.parts(events), EVENT: len(events) - 1}
        if copied_in is None:
            report(told)
            return
        with checkpoint_folder(self.config, copied_in, events) as folder:
            tune.report(told, checkpoint=tune.Checkpoint.from_directory(folder))


def _place(event: Mapping[str, Any]) -> tuple[str, int, int]:
    return event.get("scenario", ""), event["step"], event[PROGRESS]


def _finite(event: dict[str, Any]) -> dict[str, Any]:
    """The event without what JSON and MLflow cannot hold: metrics that are nan."""
    kept = {
        name: {k: v for k, v in event[name].items() if math.isfinite(v)}
        for name in ("metrics", "facts")
        if name in event
    }
    return event | kept


def first_step_task(config: TrialConfig, runtime: Runtime, *after: Any) -> None:
    """Train and score the first step into the store, once the tasks `after` are done."""
    from trainables.trial import run_first_step

    on_devices(config, runtime, run_first_step, config, runtime)


def tables_task(config: TrialConfig, runtime: Runtime, *after: Any) -> None:
    """Build the tables of the first step that trials train, whose teacher they share, once `after` are done."""
    from trainables.trial import build_tables

    on_devices(config, runtime, build_tables, config, runtime)


def chain_task(config: TrialConfig, runtime: Runtime, *after: Any) -> list[dict[str, Any]]:
    """The events of a whole chain, once the tasks `after` are done.

    Raises:
        TrainingError: a loss that is not finite.
    """
    events: list[dict[str, Any]] = on_devices(config, runtime, _events, config, runtime)
    return events


def _events(config: TrialConfig, runtime: Runtime) -> list[dict[str, Any]]:
    from trainables.trial import run_trial

    events: list[dict[str, Any]] = []
    run_trial(config, runtime, lambda event: events.append(_finite(event)))
    return events


def export_task(config: TrialConfig, runtime: Runtime, folder: Path) -> Path:
    """The exported checkpoint of a chain that the store holds; see `trainables.export.export`."""
    from trainables.export import export
    from trainables.records import WEIGHTS_FILE
    from trainables.store import Store

    chain = Store(runtime.store).find("steps", config.step_identity(len(config.scenario.steps) - 1))
    assert chain is not None, "the chain was trained before"
    return export(config, chain / WEIGHTS_FILE, folder)
