"""What a person reads while a sweep runs."""

from __future__ import annotations

import io
import math
import re

import pytest
from rich.console import Console

from sweeps import progress
from sweeps.progress import Display, TrialCount, duration
from trainables.objectives import Objective


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (89.4, "89 s"),
        (90, "2 min"),
        (720, "12 min"),
        (89 * 60, "89 min"),
        (90 * 60, "1 h 30 min"),
        (12000, "3 h 20 min"),
        (3600 * 30 + 59, "30 h 01 min"),
    ],
)
def test_a_duration_is_told_in_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


class Clock:
    """`time.monotonic` that a test moves."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock.monotonic)
    return clock


def test_a_count_tells_what_is_done_and_how_long_the_rest_takes(clock: Clock) -> None:
    count = TrialCount(4, at_once=2, objective=Objective("ap_all"))
    assert count.line() == "0/4 done, 0 running"
    count.start("a")
    count.start("b")
    clock.now = 60.0
    assert count.line() == "0/4 done, 2 running"
    count.end("a", "finished", 0.73, "trial 0")
    count.start("c")
    # Three trials of a minute each on two places, of which one minute is done.
    assert count.line() == "1/4 done, 2 running, best 73.0 (trial 0), 60 s left"
    clock.now = 120.0
    for trial_id in ("b", "c"):
        count.end(trial_id, "failed", math.nan, trial_id)
    count.start("d")
    count.end("d", "stopped", 0.9, "trial 3")
    assert count.line() == "4/4 done, 0 running, best 73.0 (trial 0)"


@pytest.mark.parametrize(("metric", "best"), [("ap_all", "trial 1"), ("forgetting", "trial 2")])
def test_the_best_is_the_best_finished_trial(metric: str, best: str) -> None:
    count = TrialCount(5, 1, Objective(metric))
    ends = [("finished", 0.2), ("finished", 0.5), ("finished", 0.1), ("finished", math.nan), ("stopped", 0.9)]
    for number, (verdict, value) in enumerate([*ends, ("stopped", 0.0)]):
        count.end(f"id{number}", verdict, value, f"trial {number}")
    assert f"({best})" in count.line()


def test_a_trial_that_starts_again_is_one_trial(clock: Clock) -> None:
    count = TrialCount(2, 1, Objective("ap_all"))
    count.start("a")
    clock.now = 50.0
    count.start("a")
    clock.now = 100.0
    count.end("a", "finished", 0.5, "trial 0")
    assert count.line() == "1/2 done, 0 running, best 50.0 (trial 0), 2 min left"


class Terminal(io.StringIO):
    """A terminal that remembers what was sent to it."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("color", [{}, {"FORCE_COLOR": "1"}])
def test_a_file_gets_whole_lines_without_control_characters_or_markup(color: dict[str, str], clock: Clock) -> None:
    out = io.StringIO()
    with Display(Console(file=out, width=20, highlight=False, _environ=color)) as display:
        display.now("0/1 done, 1 running")
        display.say("trial 0 [red] finished", "1/1 done, 0 running")
    assert out.getvalue() == "trial 0 [red] finished | 1/1 done, 0 running\n"


def test_a_file_is_told_now_and_then_how_far_things_are(clock: Clock) -> None:
    out = io.StringIO()
    with Display(Console(file=out)) as display:
        for clock.now in range(0, 1200, 10):
            display.now("0/1 done, 1 running")
            if clock.now == 800:
                display.say("trial 0 finished")
    assert out.getvalue().splitlines() == [
        "0/1 done, 1 running (5 min)",
        "0/1 done, 1 running (10 min)",
        "trial 0 finished",
        "0/1 done, 1 running (18 min)",
    ]


def test_a_terminal_shows_what_is_under_way_and_how_long_it_took_so_far(clock: Clock) -> None:
    out = Terminal()
    with Display(Console(file=out, width=80, color_system=None)) as display:
        display.now("0/1 done, 1 running")
        clock.now = 720.0
        display.say("trial 0 finished", "never shown: the live line says it")
    shown = out.getvalue()
    assert "0/1 done, 1 running (12 min)" in shown
    assert "never shown" not in shown


def test_lines_on_a_terminal_break_between_words_and_never_inside_a_path(clock: Clock) -> None:
    out, path = Terminal(), "/storage/sweeps/" + "a-long-name/" * 4 + "log.txt"
    with Display(Console(file=out, width=40)) as display:
        display.say(f"  trial 12 failed after 3 of 10 epochs  ValueError (see {path})")
    lines = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", out.getvalue()).splitlines()]
    assert [line for line in lines if line and "starting" not in line] == [
        "  trial 12 failed after 3 of 10 epochs",
        "    ValueError (see",
        f"    {path})",
    ]


def test_a_trial_s_line_fits_into_80_columns(clock: Clock) -> None:
    count = TrialCount(128, at_once=8, objective=Objective("forgetting"))
    count.end("a", "finished", 0.123, "trial 100")
    count.start("b")
    clock.now = 3600.0
    count.end("b", "finished", 0.2, "trial 101")
    assert len(f"⠋ {count.line()} (100 h 00 min)") <= 80
