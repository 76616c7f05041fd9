"""Early stopping as Tune calls it: who is compared with whom."""

from __future__ import annotations

import math
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from sweeps.results import mean_ranks
from sweeps.schedulers import Halving, NoStopping, PooledStopping, StepMedianRule, scheduler_of
from tests.sweeps.sweep_files import spec_of
from trainables.tune import EXCESSES, FAILURE, OBJECTIVE, PARTS, PROGRESS


class Trial:
    """What Tune's rules know of a trial."""

    def __init__(self, number: int) -> None:
        self.trial_id = str(number)


def play(rule: StepMedianRule, trial: Trial, values: dict[int, float]) -> str:
    """The last decision."""
    decision = TrialScheduler.CONTINUE
    for progress, value in values.items():
        decision = rule.on_trial_result(None, trial, {PROGRESS: progress, OBJECTIVE: value})
    return str(decision)


def rule_with(curves: list[dict[int, float]]) -> StepMedianRule:
    spec = spec_of(scenario="digits/4+3+3", training={"epochs": 2}, scheduler={"name": "median", "grace": 1})
    rule = scheduler_of(spec)
    assert isinstance(rule, StepMedianRule)
    for number, curve in enumerate(curves):
        play(rule, Trial(number), curve)
    return rule


GOOD = {0: 0.9, 1: 0.5, 2: 0.6, 3: 0.2, 4: 0.3}


@pytest.mark.parametrize("name", ["none", "asha", "hyperband", "median"])
def test_no_trial_whose_process_starts_is_put_before_one_that_needs_a_process(name: str) -> None:
    assert scheduler_of(spec_of(scheduler={"name": name})).choose_trial_to_run(None) is None


def test_a_trial_below_the_median_of_its_epoch_is_stopped() -> None:
    assert play(rule_with([GOOD] * 3), Trial(9), {0: 0.9, 1: 0.4}) == TrialScheduler.STOP
    assert play(rule_with([GOOD] * 3), Trial(9), {0: 0.9, 1: 0.5}) == TrialScheduler.CONTINUE


def test_what_it_was_worth_in_an_earlier_step_saves_nobody() -> None:
    """In step 2 there are more classes to find: its values are lower for everyone."""
    assert play(rule_with([GOOD] * 3), Trial(9), {0: 0.9, 1: 0.7, 2: 0.8, 3: 0.1}) == TrialScheduler.STOP
    assert play(rule_with([GOOD] * 3), Trial(9), {0: 0.9, 1: 0.5, 2: 0.6, 3: 0.25}) == TrialScheduler.CONTINUE


def test_too_few_to_compare_with_stop_nobody() -> None:
    assert play(rule_with([GOOD] * 2), Trial(9), {1: 0.0}) == TrialScheduler.CONTINUE


@pytest.mark.parametrize(
    ("scheduler", "objective", "kind"),
    [
        ({}, "ap_all", Halving),
        ({"name": "hyperband", "brackets": 2}, "ap_all", Halving),
        ({"name": "none"}, "ap_all", NoStopping),
        ({}, ["ap_new", "forgetting"], NoStopping),
        ({}, "time_train_s", NoStopping),
    ],
)
def test_a_scheduler_follows_its_name_and_who_needs_none_has_none(
    scheduler: dict[str, Any], objective: Any, kind: type
) -> None:
    spec = spec_of(scenario="digits/4+3+3", scheduler=scheduler, objective=objective)
    assert type(scheduler_of(spec)) is kind


def pooled(kind: str, objective: str = "ap_all") -> PooledStopping:
    spec = spec_of(scenario=None, scenarios=["digits/4+3+3", "digits/5+5"], pooled=kind, training={"epochs": 2},
                   scheduler={"name": "none"}, objective=objective)  # fmt: skip
    rule = scheduler_of(spec, {"digits/5+5": 0.8, "digits/4+3+3": 0.7})
    assert isinstance(rule, PooledStopping)
    return rule


def decided(rule: PooledStopping, progress: int, parts: list[float], excess: float = 0.0) -> str:
    value = rule._aim.pool(parts)
    result = {PROGRESS: progress, OBJECTIVE: value, PARTS: parts, EXCESSES: [excess]}
    return rule.on_trial_result(None, Trial(0), result)


def test_a_trial_that_fails_is_left_to_the_search() -> None:
    rule = pooled("mean")
    decided(rule, 6, [0.6, 0.6])
    for progress in (2, 6):
        failed = {PROGRESS: progress, OBJECTIVE: math.nan, FAILURE: "loss_cls must be finite"}
        assert rule.on_trial_result(None, Trial(1), failed) == TrialScheduler.CONTINUE


@pytest.mark.parametrize(
    ("kind", "first", "expected"),
    [
        ("mean", 0.45, TrialScheduler.STOP),  # with 0.7 at most in the second it comes to 0.575
        ("mean", 0.55, TrialScheduler.CONTINUE),
        ("worst", 0.55, TrialScheduler.STOP),
        ("worst", 0.65, TrialScheduler.CONTINUE),
    ],
)
def test_what_cannot_win_any_more_is_stopped_at_a_scenarios_end(kind: str, first: float, expected: str) -> None:
    rule = pooled(kind)
    assert decided(rule, 2, [0.1]) == TrialScheduler.CONTINUE  # nobody to beat yet
    assert decided(rule, 6, [0.6, 0.6]) == TrialScheduler.CONTINUE
    assert decided(rule, 2, [first]) == expected
    assert decided(rule, 1, [0.0]) == TrialScheduler.CONTINUE  # inside the first scenario


def test_who_misses_a_constraint_is_nobody_to_beat() -> None:
    rule = pooled("mean")
    decided(rule, 6, [0.9, 0.9], excess=0.1)
    assert decided(rule, 2, [0.1]) == TrialScheduler.CONTINUE


def test_without_a_reference_the_ideal_is_the_metrics_own() -> None:
    rule = pooled("mean", "hmean")
    decided(rule, 6, [0.6, 0.6])
    assert decided(rule, 2, [0.3]) == TrialScheduler.CONTINUE
    assert decided(rule, 2, [0.1]) == TrialScheduler.STOP


def test_ranks_are_shares_of_those_below() -> None:
    assert mean_ranks([[0.1, 0.9], [0.2, 0.8], [0.3, 0.8]]) == [0.5, 0.375, 0.625]
    assert mean_ranks([[0.4]]) == [0.5]
