"""What a person sees while a sweep runs: a line an event, and below it on a terminal one that changes."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.text import Text

from sweeps.terminal import console as standard_output
from sweeps.terminal import on_terminal, say
from trainables.objectives import COSTS, Objective

QUIET_S = 300.0
"""A file in which nothing was said for so long is told how far things are."""


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def shown(metric: str, value: float) -> str:
    """A metric's value for people: AP and what is made of it in COCO points, costs in their units."""
    if metric in COSTS:
        return duration(value) if metric.startswith("time_") else f"{value:,.{1 if metric.endswith('_mb') else 0}f}"
    return f"{100 * value:.1f}"


class Display:
    """Lines that stay and, on a terminal, a line that changes. Used as a context.

    Args:
        again: the command that goes on with what is interrupted.
    """

    def __init__(self, console: Console | None = None, again: str = "sweeps run FILE --resume") -> None:
        self.again, self.console = again, console or standard_output()
        self._line = "starting"
        self._status = self.console.status(self) if on_terminal(self.console) else None
        self._began = self._said = time.monotonic()

    def __enter__(self) -> Display:
        if self._status:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status:
            self._status.stop()

    def say(self, line: str, now: str = "") -> None:
        """Print a line that stays, with what `now` would tell where there is no live line."""
        self._said = time.monotonic()
        say(self.console, line if self._status or not now else f"{line} | {now}")

    def now(self, line: str) -> None:
        """Change the live line; where there is none, print it if nothing was said for long."""
        self._line = line
        if not self._status and time.monotonic() - self._said >= QUIET_S:
            self.say(str(self.__rich__()))

    def __rich__(self) -> Text:
        """The live line, and the time so far."""
        return Text(f"{self._line} ({duration(time.monotonic() - self._began)})")


class TrialCount:
    """How far the search is, in words, from how its trials ended."""

    def __init__(self, total: int, at_once: int, objective: Objective) -> None:
        self.total, self.at_once, self.objective = total, at_once, objective
        self.ended: dict[str, str] = {}
        self.running: dict[str, float] = {}
        self.times: list[float] = []
        self.best: tuple[float, str] | None = None

    def start(self, trial_id: str) -> None:
        """A trial started or went on."""
        self.running.setdefault(trial_id, time.monotonic())

    def end(self, trial_id: str, verdict: str, value: float, label: str) -> None:
        """A trial ended, now or under an earlier driver, with the objective's value; nan where it cannot be best."""
        if (began := self.running.pop(trial_id, None)) is not None:
            self.times.append(self._age(began))
        self.ended[trial_id] = verdict
        better = self.best is None or (value > self.best[0]) == (self.objective.direction == "max")
        if verdict == "finished" and better and value == value:
            self.best = (value, label)

    def line(self) -> str:
        """`7/16 done, 2 running, best 73.0 (trial 3), 6 min left`."""
        done = len(self.ended)
        parts = [f"{done}/{self.total} done", f"{len(self.running)} running"]
        if self.best:
            parts.append(f"best {shown(self.objective.metric, self.best[0])} ({self.best[1]})")
        if self.times and done < self.total:
            mean = sum(self.times) / len(self.times)
            left = ((self.total - done) * mean - sum(map(self._age, self.running.values()))) / self.at_once
            parts.append(f"{duration(max(left, 0))} left")
        return ", ".join(parts)

    @staticmethod
    def _age(began: float) -> float:
        return time.monotonic() - began
