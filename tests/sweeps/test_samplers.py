"""Samplers by name, and the points of a grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from search_spaces.distributions import Uniform
from sweeps.gaussian_process import StoppedTrialsGPSampler
from sweeps.samplers import SAMPLERS, optuna_distribution
from sweeps.searcher import IncrementalSearch
from sweeps.study import study_storage
from tests.sweeps.searches import SPACE, flat, search_of
from tests.sweeps.sweep_files import spec_of
from trainables.tune import EXCESSES, OBJECTIVE, PROGRESS, VALUES


def play(search: IncrementalSearch, number: int, values: list[float], excesses: list[float]) -> dict[str, Any]:
    chosen = flat(search.suggest(str(number)))
    told = {PROGRESS: 4, OBJECTIVE: values[0], VALUES: values, EXCESSES: excesses}
    search.on_trial_result(str(number), told)
    search.on_trial_complete(str(number), told)
    return chosen


@pytest.mark.filterwarnings("error::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "grid"])
def test_every_sampler_proposes_points_of_the_space_again_and_again(sampler: str, tmp_path: Path) -> None:
    def asked(folder: Path) -> list[dict[str, Any]]:
        search, spec = search_of(folder, sampler=sampler, trials=16)
        points = [play(search, number, [0.1 * (number % 7)], []) for number in range(10)]
        for point in points:
            assert point.keys() == spec.space.keys()
            assert all(spec.space[name].problem(name, value) is None for name, value in point.items())
        return points

    first = asked(tmp_path / "a")
    assert asked(tmp_path / "b") == first
    assert len({tuple(point.values()) for point in first}) >= 8  # genetic ones may repeat a parent


@pytest.mark.parametrize("sampler", [name for name, kind in SAMPLERS.items() if kind.objectives and name != "grid"])
def test_several_objectives_and_a_constraint_reach_the_study(sampler: str, tmp_path: Path) -> None:
    changes = {"sampler": sampler, "objective": ["ap_new", "forgetting"], "constraints": ["ap_old >= 0.3"]}
    search, spec = search_of(tmp_path, **changes)
    for number in range(9):
        play(search, number, [0.1 * number, 0.2], [0.05 * (4 - number)])
    study = optuna.load_study(study_name=spec.name, storage=study_storage(spec.folder))
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert [trial.values for trial in study.trials] == [[pytest.approx(0.1 * n), 0.2] for n in range(9)]
    assert study.trials[0].constraints == {"ap_old >= 0.3": pytest.approx(0.2)}
    assert [trial.number for trial in study.best_trials] == [8]


def test_a_grid_is_every_combination_once_and_the_preset_comes_first(tmp_path: Path) -> None:
    grid = {"lambda_cls": {"values": [0.1, 1, 10]}, "alpha_cls": {"low": 1.0, "high": 2.0, "step": 0.5}}
    search, spec = search_of(tmp_path, search=grid, sampler="grid")
    assert spec.trials == 9
    points = [play(search, number, [0.5], []) for number in range(spec.trials)]
    assert points[0] == {"erd/lambda_cls": 1.0, "erd/alpha_cls": 2.0}
    assert len({tuple(point.values()) for point in points}) == 9
    assert {point["erd/lambda_cls"] for point in points} == {0.1, 1.0, 10.0}


def test_a_grid_leaves_out_what_does_not_act() -> None:
    search = {"select": ["elastic", "all"], "alpha_cls": {"values": [1.0, 2.0]}, "cls_loss": ["l2_logit", "kl"]}
    points = spec_of(search=search, sampler="grid").first_points()
    assert len(points) == 6
    assert {"erd/select": "all", "erd/cls_loss": "kl"} in points


def test_a_parameter_exists_only_under_its_parents_value(tmp_path: Path) -> None:
    search, _ = search_of(tmp_path, search={"alpha_cls": "declared", "select": ["elastic", "topk"], "topk": "declared"})
    for number in range(12):
        point = play(search, number, [0.1 * (number % 5)], [])
        acting = {"elastic": "erd/alpha_cls", "topk": "erd/topk"}[point["erd/select"]]
        assert point.keys() == {"erd/select", acting}


def test_the_method_is_a_parameter_and_each_has_its_own(tmp_path: Path) -> None:
    asked = {"lambda_cls": "declared", "loss_scope": "declared", "lr_scale": "declared"}
    search, _ = search_of(tmp_path, method=["erd", "finetune"], search=asked)
    points = [play(search, number, [0.1 * (number % 5)], []) for number in range(14)]
    assert points[0] == {"method": "erd", "erd/lambda_cls": 1.0, "optim/lr_scale": 1.0}
    assert points[1] == {"method": "finetune", "finetune/loss_scope": "full", "optim/lr_scale": 1.0}
    own = {"erd": "erd/lambda_cls", "finetune": "finetune/loss_scope"}
    for point in points:
        assert point.keys() == {"method", own[point["method"]], "optim/lr_scale"}
    assert {point["method"] for point in points[2:]} == {"erd", "finetune"}


def test_ranges_in_optunas_terms() -> None:
    space = spec_of(search=SPACE | {"alpha_box": [1.0, 2.0]}).space
    found = {name: optuna_distribution(kind) for name, kind in space.items()}
    assert found["erd/lambda_cls"] == optuna.distributions.FloatDistribution(0.05, 5.0, log=True)
    assert found["erd/alpha_cls"] == optuna.distributions.FloatDistribution(0.5, 3.5, step=0.25)
    assert found["optim/warmup_iters"] == optuna.distributions.IntDistribution(0, 200)
    assert isinstance(found["erd/cls_loss"], optuna.distributions.CategoricalDistribution)


def test_a_gaussian_process_learns_from_stopped_trials() -> None:
    ranges = {"x": optuna_distribution(Uniform(0.0, 1.0))}

    def proposed(kind: type[optuna.samplers.GPSampler]) -> float:
        study = optuna.create_study(direction="maximize", sampler=kind(seed=0, n_startup_trials=4))
        for x in (0.0, 0.15, 0.3, 0.45):  # the more, the better,
            known = {"params": {"x": x}, "distributions": ranges, "intermediate_values": {1: x - 0.1}}
            study.add_trial(optuna.create_trial(value=x, **known))
        for x in (0.8, 0.9, 1.0):  # but too much is bad
            known = {"params": {"x": x}, "distributions": ranges, "intermediate_values": {1: -1.0}}
            study.add_trial(optuna.create_trial(state=optuna.trial.TrialState.PRUNED, **known))
        return float(study.ask(ranges).params["x"])

    assert proposed(optuna.samplers.GPSampler) > 0.7
    assert proposed(StoppedTrialsGPSampler) < 0.7
