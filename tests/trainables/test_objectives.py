"""What a trial is judged by, from its events: at its end, on the way, over its increments."""

from __future__ import annotations

import math
from typing import Any

import pytest

from trainables.objectives import Aim, Constraint, Objective


def end(step: int, seconds: float = 0.0, saved: float = 0.0, **metrics: float) -> dict[str, Any]:
    facts = {"time_train_s": seconds, "params_trainable": 100.0 + step}
    facts |= {"time_saved_steps_s": saved} if saved else {}
    return {"step": step, "classes": [], "metrics": metrics, "facts": facts}


def on_the_way(step: int, **metrics: float) -> dict[str, Any]:
    return {"step": step, "metrics": {f"{name}_mid": value for name, value in metrics.items()} | {"loss_cls": 9.0}}


BASE = end(0, 50.0, ap_all=0.7)
CHAIN = [BASE, on_the_way(1, ap_all=0.1), end(1, 10.0, ap_all=0.6, forgetting=0.1), end(2, 30.0, ap_all=0.3)]


@pytest.mark.parametrize(
    ("over", "expected"), [("last", 0.3), ("mean", 0.45), ("sum", 0.9), ((1.0, 3.0), 0.375), ((0.0, 1.0), 0.3)]
)
def test_an_objective_is_taken_over_the_increments_as_asked(over: Any, expected: float) -> None:
    assert Objective("ap_all", over).value(CHAIN) == pytest.approx(expected, abs=1e-12)


def test_an_increment_counts_as_it_is_scored_on_the_way() -> None:
    events = [BASE, CHAIN[2], on_the_way(2, ap_all=0.2)]
    assert Objective("ap_all").value(events) == 0.2
    assert Objective("ap_all", "mean").value(events) == pytest.approx(0.4)
    assert math.isnan(Objective("ap_all", (0.0, 1.0)).value(events[:2]))


def test_before_the_first_increment_it_is_the_base_steps() -> None:
    assert Objective("ap_all").value([BASE]) == 0.7
    assert math.isnan(Objective("forgetting").value([BASE]))


def test_a_cost_is_that_of_the_increments_also_where_the_store_had_them() -> None:
    events = [BASE, end(1, 10.0), end(2, 0.0, saved=30.0)]
    assert Objective("time_train_s").value(events) == 40.0
    assert Objective("params_trainable").value(events) == 102.0


def test_a_constraint_is_held_at_its_bound_and_below() -> None:
    assert Constraint("forgetting", "<=", 0.1).excess(CHAIN[:3]) == 0
    assert Constraint("forgetting", "<=", 0.04).excess(CHAIN[:3]) == pytest.approx(0.06)
    assert Constraint("ap_all", ">=", 0.5).excess(CHAIN) == pytest.approx(0.2)
    assert math.isnan(Constraint("rsd", "<=", 0.5).excess(CHAIN))


def test_an_aim_is_all_of_them_and_says_so() -> None:
    aim = Aim((Objective("ap_all"), Objective("time_train_s")), (Constraint("forgetting", "<=", 0.05),))
    assert aim.values(CHAIN) == [0.3, 40.0]
    assert aim.line == "ap_all, time_train_s; forgetting <= 0.05"
    assert [objective.direction for objective in aim.objectives] == ["max", "min"]


def on(scenario: str, *events: dict[str, Any]) -> list[dict[str, Any]]:
    return [event | {"scenario": scenario} for event in events]


POOLED = [*on("a", BASE, end(1, ap_all=0.6, forgetting=0.1)), *on("b", BASE, end(1, ap_all=0.4, forgetting=0.3))]


@pytest.mark.parametrize(("pooled", "expected"), [("mean", 0.5), ("worst", 0.4), ("rank", 0.5)])
def test_scenarios_are_pooled_as_asked(pooled: str, expected: float) -> None:
    aim = Aim((Objective("ap_all"),), (Constraint("forgetting", "<=", 0.2),), pooled)
    assert aim.values(POOLED) == [pytest.approx(expected)]
    assert aim.parts(POOLED) == [0.6, 0.4]
    assert aim.excesses(POOLED) == [pytest.approx(0.1)]  # it must hold in each


def test_a_scenario_counts_from_its_first_increment_on() -> None:
    aim = Aim((Objective("ap_all"),), (), "mean")
    assert aim.values(POOLED[:1]) == [0.7]
    assert aim.values(POOLED[:3]) == [0.6]
    assert aim.values([*POOLED[:3], *on("b", on_the_way(1, ap_all=0.2))]) == [pytest.approx(0.4)]


def test_the_worst_is_the_highest_of_what_should_be_low() -> None:
    assert Aim((Objective("forgetting"),), (), "worst").values(POOLED) == [0.3]
