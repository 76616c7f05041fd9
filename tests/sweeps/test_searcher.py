"""The searcher as Tune calls it, without a cluster: what the study's file holds afterwards."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from sweeps.searcher import IncrementalSearch
from sweeps.spec import SweepSpec
from sweeps.study import study_file
from tests.sweeps.searches import Search, flat, go_on, interrupted, result, resumed, run, search_of
from trainables.catalog import METHODS


@pytest.fixture
def search(tmp_path: Path) -> Search:
    return search_of(tmp_path)


def study_of(spec: SweepSpec) -> optuna.Study:
    """The study as Optuna's own reader finds it in the sweep's folder."""
    file = JournalFileBackend(str(study_file(spec.folder)))
    return optuna.load_study(study_name=spec.name, storage=JournalStorage(file))


def trials_of(spec: SweepSpec) -> list[FrozenTrial]:
    """What a fresh reader finds."""
    return study_of(spec).trials


@pytest.mark.parametrize("preset", [name for name in METHODS["erd"].presets if name != "erd_2022"])
def test_trial_0_is_the_preset_and_the_next_one_is_not(tmp_path: Path, preset: str) -> None:
    searcher, spec = search_of(tmp_path, preset=preset)
    first = searcher.suggest("t0")
    assert set(first) == {"erd", "optim"}
    assert flat(first) == spec.first_points()[0]
    assert searcher.suggest("t0") == first
    assert flat(searcher.suggest("t1")) != spec.first_points()[0]


def test_trial_0_is_the_preset_even_outside_the_range(tmp_path: Path) -> None:
    searcher, spec = search_of(tmp_path, search={"lambda_cls": [2.0, 5.0], "alpha_cls": {"low": 0.6, "high": 3.35}})
    assert flat(searcher.suggest("t0")) == {"erd/lambda_cls": 1.0, "erd/alpha_cls": 2.0}
    searcher.on_trial_complete("t0", result(4, 0.5))
    for number in range(1, 9):  # more than the random ones at the start
        assert 2.0 <= flat(searcher.suggest(f"t{number}"))["erd/lambda_cls"] <= 5.0
        searcher.on_trial_complete(f"t{number}", result(4, 0.1 * number))
    assert trials_of(spec)[0].value == 0.5


def test_suggestions_stay_in_the_space_with_their_types(search: Search) -> None:
    searcher, spec = search
    for number in range(12):
        for name, value in flat(searcher.suggest(f"t{number}")).items():
            assert spec.space[name].problem(name, value) is None
            assert type(value) is type(spec.first_points()[0][name])
        searcher.on_trial_complete(f"t{number}", result(4, number / 12))


def test_a_finished_trial_is_complete_with_its_curve_on_the_clock(search: Search) -> None:
    searcher, spec = search
    run(searcher, "t0", 0.1, 0.2, 0.3, 0.4)
    (trial,) = trials_of(spec)
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.4)
    assert trial.intermediate_values == {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}


def test_a_stopped_trial_is_pruned_with_every_value_that_it_reached(search: Search) -> None:
    searcher, spec = search
    run(searcher, "t0", 0.1, 0.3, stopped=True)
    run(searcher, "t1", 0.2, stopped=True)
    first, second = trials_of(spec)
    assert first.state == second.state == TrialState.PRUNED
    assert first.intermediate_values == {1: 0.1, 2: 0.3}
    assert second.intermediate_values == {1: 0.2}


def test_the_base_step_is_no_value_of_the_search(search: Search) -> None:
    searcher, spec = search
    searcher.suggest("t0")
    searcher.on_trial_result("t0", result(0, 0.99))
    run(searcher, "t0", 0.1, 0.2, 0.3, 0.4)
    assert trials_of(spec)[0].intermediate_values == {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_a_failure(search: Search, value: float) -> None:
    searcher, spec = search
    run(searcher, "t0", 0.1, value, 0.1, value)
    (trial,) = trials_of(spec)
    assert (trial.state, trial.value) == (TrialState.FAIL, None)
    assert trial.intermediate_values == {1: 0.1, 3: 0.1}


@pytest.mark.parametrize(
    "end", [{"error": True}, {"result": None}, {"result": {"done": True}}, {"result": result(4, 0.1), "error": True}]
)
def test_an_error_or_an_end_without_a_result_is_a_failure(search: Search, end: dict[str, Any]) -> None:
    searcher, spec = search
    searcher.suggest("t0")
    searcher.on_trial_complete("t0", **end)
    assert [trial.state for trial in trials_of(spec)] == [TrialState.FAIL]


def test_the_objective_may_be_one_that_falls(tmp_path: Path) -> None:
    searcher, spec = search_of(tmp_path, objective="forgetting")
    run(searcher, "t0", 0.1, 0.1, 0.1, 0.1)
    run(searcher, "t1", 0.3, 0.3, 0.3, 0.3)
    assert study_of(spec).best_trial.number == 0


def suggestions(storage: Path, **changes: Any) -> list[dict[str, Any]]:
    searcher, _ = search_of(storage, **changes)
    told = []
    for number in range(10):
        told.append(flat(searcher.suggest(f"t{number}")))
        searcher.on_trial_complete(f"t{number}", result(4, math.sin(number)))
    return told


def test_the_same_seed_asks_the_same(tmp_path: Path) -> None:
    first = suggestions(tmp_path / "a", seed=3)
    assert suggestions(tmp_path / "b", seed=3) == first
    assert suggestions(tmp_path / "c", seed=4) != first


def test_sweeps_on_one_storage_have_studies_of_their_own(tmp_path: Path) -> None:
    run(search_of(tmp_path, name="one")[0], "t0", 0.1, 0.1, 0.1, 0.1)
    searcher, spec = search_of(tmp_path, name="two")
    assert flat(searcher.suggest("t0")) == spec.first_points()[0]


def test_a_restore_takes_the_study_back_to_the_snapshot(tmp_path: Path) -> None:
    spec = interrupted(tmp_path)
    searcher = resumed(tmp_path)
    assert [trial.state.name for trial in trials_of(spec)] == ["COMPLETE", "RUNNING", "RUNNING"]
    go_on(searcher)
    trials = trials_of(spec)
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE", "PRUNED", "COMPLETE"]
    assert [trial.value for trial in trials] == [0.4, 0.7, 0.4, 0.6]
    assert trials[1].intermediate_values == {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.7}


def test_an_operation_that_a_kill_left_torn_is_as_if_never_begun(tmp_path: Path) -> None:
    spec = interrupted(tmp_path)
    whole = study_file(spec.folder).read_bytes()
    study_file(spec.folder).write_bytes(whole + b'{"op_code":4,"worker')
    go_on(resumed(tmp_path))
    assert [trial.value for trial in trials_of(spec)] == [0.4, 0.7, 0.4, 0.6]


def test_another_process_goes_on_with_it(tmp_path: Path) -> None:
    spec = interrupted(tmp_path)
    code = f"""
from pathlib import Path
from tests.sweeps.searches import go_on, resumed
go_on(resumed(Path({str(tmp_path)!r})))
"""
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)
    assert [trial.value for trial in trials_of(spec)] == [0.4, 0.7, 0.4, 0.6]


def proposals(storage: Path, sampler: str, values: dict[str, float]) -> dict[str, list[dict[str, Any]]]:
    """What a search of each method by itself proposes to each, where a method's trials end with its own values."""
    storage.mkdir()
    searcher, _ = search_of(
        storage, method=["erd", "lwf"], search={"lambda_cls": "declared", "w_out": "declared", "lr_scale": "declared"},
        each_method=True, sampler=sampler, trials=12,
    )  # fmt: skip
    seen: dict[str, list[dict[str, Any]]] = {"erd": [], "lwf": []}
    for number in range(12):
        suggested: Any = searcher.suggest(f"t{number}")
        method = suggested.pop("method")
        seen[method].append(flat(suggested))
        value = values[method] * abs(1 - suggested["optim"]["lr_scale"])
        searcher.on_trial_complete(f"t{number}", result(4, value))
    return seen


@pytest.mark.parametrize("sampler", ["gp", "tpe", "qmc", "random"])
def test_each_method_has_as_many_trials_that_follow_from_its_own_alone(tmp_path: Path, sampler: str) -> None:
    one = proposals(tmp_path / "one", sampler, {"erd": 0.5, "lwf": 0.5})
    other = proposals(tmp_path / "other", sampler, {"erd": 0.5, "lwf": -0.5})
    assert len(one["erd"]) == len(one["lwf"]) == 6
    assert one["erd"] == other["erd"]
    assert one["lwf"] != other["lwf"] or sampler in ("qmc", "random")


def test_a_search_of_each_method_goes_on_after_a_restore(tmp_path: Path) -> None:
    searcher, spec = search_of(tmp_path, method=["erd", "lwf"], each_method=True, sampler="gp", trials=8)
    for number in range(5):
        run(searcher, f"t{number}", 0.1, 0.2, 0.3, 0.1 * number)
    searcher.save(str(tmp_path / "state"))
    again = IncrementalSearch(spec)
    again.restore(str(tmp_path / "state"))
    suggested: Any = again.suggest("t5")
    assert suggested["method"] == "lwf"
