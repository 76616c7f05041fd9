"""When a search is over before its last trial."""

from __future__ import annotations

from typing import Any

import pytest

from sweeps import budget
from sweeps.budget import Spending
from tests.sweeps.sweep_files import spec_of
from trainables.tune import EXCESSES, OBJECTIVE


def ended(value: float, seconds: float = 60.0, excess: float = 0.0) -> dict[str, Any]:
    return {OBJECTIVE: value, EXCESSES: [excess], "time_total_s": seconds}


def test_without_a_budget_nothing_ends_it() -> None:
    spending = Spending(spec_of())
    spending.end("a", ended(0.5, 1e9))
    assert spending.exhausted() is None
    assert spending.line() == ""


def test_hours_of_all_trials_together_count_each_trial_once() -> None:
    spending = Spending(spec_of(budget={"core_hours": 0.1}, resources={"cpu": 2}))
    spending.spend("a", ended(0.5, 60))
    spending.spend("a", ended(0.5, 90))  # of these, 60 were known
    assert spending.exhausted() is None
    assert spending.line() == "0.05 of 0.1 core-hours left"
    spending.end("b", ended(0.5, 90))
    assert spending.exhausted() == "0.1 core-hours"


def test_wall_time_counts_from_this_driver_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(budget.time, "time", lambda: now)
    spending = Spending(spec_of(budget={"hours": 1.0}))
    now += 3599
    assert spending.exhausted() is None
    now += 2
    assert spending.exhausted() == "1 hours"
    spending.restart()
    assert spending.exhausted() is None


@pytest.mark.parametrize(("objective", "better"), [("ap_all", 0.6), ("forgetting", 0.4)])
def test_patience_is_for_trials_without_a_better_one_that_holds(objective: str, better: float) -> None:
    spending = Spending(spec_of(budget={"patience": 2}, objective=objective))
    for value in (0.5, 0.5, better):
        spending.end("x", ended(value))
    spending.end("x", ended(0.0 if objective == "forgetting" else 0.9, excess=0.1))  # misses its constraint
    assert spending.exhausted() is None
    spending.end("x", ended(better))
    assert spending.exhausted() == "2 trials without a better one"


def test_trials_that_all_fail_end_it_until_a_person_goes_on() -> None:
    spending = Spending(spec_of())
    for number in range(budget.HOPELESS):
        assert spending.exhausted() is None
        spending.fail(f"trial {number}")
    assert spending.hopeless
    assert spending.exhausted() == "patience with trials that fail"
    spending.restart()
    assert spending.exhausted() is None


@pytest.mark.parametrize("how", ["end", "stop"])
def test_trials_that_fail_beside_others_end_nothing(how: str) -> None:
    spending = Spending(spec_of())
    getattr(spending, how)("good", ended(0.5))
    for number in range(2 * budget.HOPELESS):
        spending.fail(f"trial {number}")
    assert spending.exhausted() is None
