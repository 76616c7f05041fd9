"""What is declared once of each parameter: default, range, condition, the loosest of what a table is kept for."""

from __future__ import annotations

import importlib
import json
import math
import pkgutil
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError, asdict, fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import search_spaces
from search_spaces import erd
from search_spaces.distributions import Choice, Distribution, IntUniform, LogUniform, Uniform, narrowed
from search_spaces.erd import ERDParams
from search_spaces.finetune import FinetuneParams
from search_spaces.params import covers, floor, inactive, params_of, problems_of, table
from trainables.catalog import DETECTORS, METHODS

PRESETS = {f"{name}: {preset}": params for name, one in METHODS.items() for preset, params in one.presets.items()}
ALONE = {method.params for name, method in METHODS.items() if "-" not in name}
CLASSES = {method.params for method in METHODS.values()} | {detector.optim for detector in DETECTORS.values()}
every_class = pytest.mark.parametrize(
    "cls", sorted(CLASSES, key=lambda cls: cls.__name__), ids=lambda cls: cls.__name__
)
MODULES = [f"search_spaces.{module.name}" for module in pkgutil.iter_modules(search_spaces.__path__)]


def test_loads_the_standard_library_alone() -> None:
    imports = ", ".join(MODULES)
    call = (
        f"import json, sys; known = set(sys.modules); import {imports}; print(json.dumps([*set(sys.modules) - known]))"
    )
    root = Path(search_spaces.__path__[0]).parent
    done = subprocess.run([sys.executable, "-S", "-c", call], cwd=root, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert {"search_spaces.erd", "search_spaces.params"} <= set(json.loads(done.stdout))
    assert loaded - {"search_spaces"} <= sys.stdlib_module_names


def test_every_class_of_parameters_is_in_the_catalogue() -> None:
    declared = {
        value
        for module in map(importlib.import_module, MODULES)
        for name, value in vars(module).items()
        if name.endswith("Params") and value.__module__ == module.__name__
    }
    assert declared == ALONE | {detector.optim for detector in DETECTORS.values()}


@every_class
def test_a_parameter_has_one_type_a_default_in_its_range_and_a_source(cls: type) -> None:
    params, kinds = params_of(cls), get_type_hints(cls)
    assert list(params) == [field.name for field in fields(cls)]
    for name, param in params.items():
        declared, kind = param.distribution, kinds[name]
        assert type(param.default) is kind, name
        assert declared.problem(name, param.default) is None
        assert param.source.strip(), name
        if isinstance(declared, Choice):
            assert {type(value) for value in declared.values} == {kind}, name
            assert len(set(declared.values)) == len(declared.values) > 1, name
        else:
            assert isinstance(declared, IntUniform if kind is int else Uniform), name
            assert {type(declared.low), type(declared.high)} == {kind}, name
            assert narrowed(name, declared, {}) == declared  # refuses what is no range


@every_class
def test_a_condition_and_what_a_table_keeps_can_be_decided(cls: type) -> None:
    params = params_of(cls)
    for name, param in params.items():
        if param.when:
            parent = params[param.when.parent].distribution
            assert isinstance(parent, Choice), name
            assert set(param.when.values) < set(parent.values), name
        if param.keeps:
            assert (param.keeps.loosest is None) == isinstance(param.distribution, Choice), name


@pytest.mark.parametrize("params", PRESETS.values(), ids=PRESETS)
def test_presets_are_allowed_and_fixed(params: Any) -> None:
    assert problems_of(type(params), asdict(params)) == []
    with pytest.raises(FrozenInstanceError):
        params.new_row_init = "mean_old"


def test_the_released_codes_differ_from_ours_where_the_literature_says() -> None:
    ours = asdict(erd.PRESETS["fixed"])
    assert ours == asdict(ERDParams())
    changed = {
        name: {key: value for key, value in asdict(erd.PRESETS[name]).items() if value != ours[key]}
        for name in ("erd_2023", "erd_2022")
    }
    assert changed["erd_2023"] == {
        "cls_reduction": "sum_images", "box_reduction": "sum_images", "decode_with_stride": False,
        "new_row_init": "torch_default",
    }  # fmt: skip
    assert changed["erd_2022"] == {
        "cls_reduction": "concat_mean", "box_reduction": "sum_images", "decode_with_stride": False,
        "normaliser": "plain", "average_eps": False, "lr_rule": "none",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("distribution", "allowed", "refused"),
    [
        (Uniform(0.5, 3.5, 0.25), [0.5, 3.5, 2, 0.6], [0.49, 3.6, math.nan, math.inf, True, "2", None]),
        (LogUniform(0.02, 20.0), [0.02, 20, 1], [0, 0.0, -1.0, 21, False, math.nan]),
        (LogUniform(0.02, 20.0, zero=True), [0.02, 20, 0, 0.0], [-1.0, 0.01, False, True]),
        (IntUniform(50, 1000, log=True), [50, 1000], [49, 1001, 100.0, True, "100"]),
        (Choice((1, 2, 5)), [1, 2, 5], [3, True, "1"]),
        (Choice((False, True)), [False, True], [0, 1, "true"]),
        (Choice(("elastic", "all")), ["elastic"], ["Elastic", None, 1, ["elastic"]]),
    ],
    ids=str,
)
def test_what_a_range_allows(distribution: Distribution, allowed: list[Any], refused: list[Any]) -> None:
    assert [distribution.problem("x", value) for value in allowed] == [None] * len(allowed)
    problems = [distribution.problem("x", value) for value in refused]
    assert all(
        problem and "x" in problem and str(value) in problem for problem, value in zip(problems, refused, strict=True)
    )


def test_problems_come_all_at_once_with_what_is_allowed() -> None:
    problems = problems_of(ERDParams, {"lambda_clss": 1, "alpha_cls": -1.0, "select": "some", "T": 10, "topk": 1.5})
    assert len(problems) == 4
    unknown, alpha, select, topk = problems
    assert unknown.startswith("lambda_clss: unknown; available: lambda_cls, lambda_box, ")
    assert alpha == "alpha_cls: `0.5 <= alpha_cls <= 3.5` must hold, but got (alpha_cls=-1.0)"
    assert select == "select: select='some' is unknown; available: elastic, all, topk, fixed_thr"
    assert topk == "topk: topk must be a whole number, but got 1.5"


@pytest.mark.parametrize(
    ("declared", "change", "result"),
    [
        (Uniform(0.5, 3.5, 0.25), [1, 2], Uniform(1, 2, 0.25)),
        (Uniform(0.5, 3.5, 0.25), {"low": 1.0, "step": 0.5}, Uniform(1.0, 3.5, 0.5)),
        (LogUniform(0.02, 20.0, zero=True), [0.001, 100.0], LogUniform(0.001, 100.0, zero=True)),
        (LogUniform(0.02, 20.0), {"high": 2}, LogUniform(0.02, 2)),
        (IntUniform(50, 1000, log=True), {"low": 10}, IntUniform(10, 1000, log=True)),
        (Choice(("a", "b", "c")), ["c", "a"], Choice(("c", "a"))),
        (Choice((False, True)), [True], Choice((True,))),
    ],
)
def test_a_range_is_narrowed_or_widened(declared: Distribution, change: Any, result: Distribution) -> None:
    assert narrowed("x", declared, change) == result


@pytest.mark.parametrize(
    ("declared", "change", "message"),
    [
        (Uniform(0, 1), [0.5, 0.5], "`low < high` must hold for x, but got (low=0.5, high=0.5)"),
        (Uniform(0, 1), {"low": 2}, "`low < high` must hold for x, but got (low=2, high=1)"),
        (Uniform(0, 1), [0.5], "x takes a range `[low, high]`, but got [0.5]"),
        (
            Uniform(0, 1),
            {"low": 0.1, "lo": 0, "max": 3},
            "x has unknown keys ['lo', 'max']; available: high, low, step, values",
        ),
        (Uniform(0, 1), {"step": 0}, "`step > 0` must hold for x, but got (step=0)"),
        (Uniform(0, 1), {"low": "0"}, "x.low must be a finite number of the parameter's type, but got '0'"),
        (Uniform(0, 1), {"low": True}, "x.low must be a finite number of the parameter's type, but got True"),
        (Uniform(0, 1), [0, math.inf], "x.high must be a finite number of the parameter's type, but got inf"),
        (Uniform(0, 1), [math.nan, 1], "x.low must be a finite number of the parameter's type, but got nan"),
        (LogUniform(0.1, 1), [0, 1], "`low > 0` must hold for x on a logarithmic scale, but got (low=0)"),
        (LogUniform(0.1, 1), {"step": 0.1}, "x has unknown keys ['step']; available: high, low, values"),
        (IntUniform(1, 9), [1.5, 3], "x.low must be a finite number of the parameter's type, but got 1.5"),
        (IntUniform(1, 9, log=True), [0, 3], "`low > 0` must hold for x on a logarithmic scale, but got (low=0)"),
        (Choice(("a", "b")), ["a", "d", "e"], "x='d' is unknown; available: a, b; x='e' is unknown; available: a, b"),
        (Choice(("a", "b")), [], "x takes a list of its values, but got []"),
        (Choice(("a", "b")), {"low": 1}, "x takes a list of its values, but got {'low': 1}"),
    ],
)
def test_a_change_that_makes_no_range_is_told(declared: Distribution, change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        narrowed("x", declared, change)


def test_a_parameter_acts_only_under_its_condition() -> None:
    names = ["topk", "thr", "alpha_cls", "stat_scope", "T"]
    assert inactive(ERDParams, names, {"select": "elastic"}) == ["topk", "thr"]
    assert inactive(ERDParams, names, {"select": "topk"}) == ["thr", "alpha_cls", "stat_scope"]
    assert inactive(ERDParams, names, {}) == []  # `select` itself is searched


def ranges(**varied: list[Any]) -> dict[str, list[Any]]:
    """What trials may take: the defaults, and of some parameters several values or the ends of a range."""
    return {name: [value] for name, value in asdict(ERDParams()).items()} | varied


def values(**own: Any) -> dict[str, Any]:
    return asdict(ERDParams(**own))


ELASTIC = {"alpha_cls": 2.0, "alpha_box": 2.0, "select": "elastic"}
ELASTIC |= {"stat_scope": "all_levels", "box_response": "max_logit"}


def test_the_floor_holds_the_loosest_of_what_decides_and_acts() -> None:
    assert floor(ERDParams, ranges()) == ELASTIC
    assert floor(ERDParams, ranges(alpha_cls=[3.5, 0.5, 2.0], lambda_cls=[0.1, 9.0])) == ELASTIC | {"alpha_cls": 0.5}
    fixed = {"select": "fixed_thr", "box_response": "max_logit"}
    assert floor(ERDParams, ranges(select=["fixed_thr"], thr=[0.05, 0.5])) == fixed | {"thr": 0.05}
    assert floor(ERDParams, ranges(select=["topk"], topk=[50, 1000])) == fixed | {"select": "topk", "topk": 1000}
    assert floor(FinetuneParams, {name: [value] for name, value in asdict(FinetuneParams()).items()}) == {}


@pytest.mark.parametrize(
    ("name", "taken"),
    [("select", ["elastic", "all"]), ("stat_scope", ["all_levels", "per_level"]), ("box_response", ["a", "b", "a"])],
)
def test_a_parameter_without_a_loosest_value_has_no_floor_where_it_varies(name: str, taken: list[Any]) -> None:
    with pytest.raises(ValueError, match=f"^the search varies {name}, and each of its values needs other responses$"):
        floor(ERDParams, ranges(**{name: taken}))
    assert floor(ERDParams, ranges(**{name: taken[:1] * 2}))[name] == taken[0]


def test_what_varies_without_acting_needs_nothing() -> None:
    assert "stat_scope" not in floor(ERDParams, ranges(select=["all"], stat_scope=["all_levels", "per_level"]))


@pytest.mark.parametrize(
    ("loosest", "own", "expected"),
    [
        (ELASTIC, {}, True),
        (ELASTIC, {"alpha_cls": 2.25, "alpha_box": 3.5, "lambda_cls": 0.1, "nms_iou": 0.5}, True),
        (ELASTIC, {"alpha_cls": 1.75}, False),
        (ELASTIC, {"alpha_cls": 3.0, "alpha_box": 1.75}, False),
        (ELASTIC, {"box_response": "max_prob"}, False),
        (ELASTIC, {"stat_scope": "per_level"}, False),
        (ELASTIC, {"select": "all"}, False),
        ({"select": "all", "box_response": "max_logit"}, {}, False),  # it would serve, and is not asked for
        ({"select": "topk", "topk": 100, "box_response": "max_logit"}, {"select": "topk", "topk": 99}, True),
        ({"select": "topk", "topk": 100, "box_response": "max_logit"}, {"select": "topk", "topk": 101}, False),
        ({"select": "fixed_thr", "thr": 0.1, "box_response": "max_logit"}, {"select": "fixed_thr", "thr": 0.1}, True),
        ({"select": "fixed_thr", "thr": 0.1, "box_response": "max_logit"}, {"select": "fixed_thr", "thr": 0.09}, False),
        ({}, {}, False),
    ],
)
def test_a_floor_covers_what_is_not_looser(loosest: dict[str, Any], own: dict[str, Any], expected: bool) -> None:
    assert covers(ERDParams, loosest, values(**own)) is expected


def test_a_floor_covers_every_trial_that_it_is_of() -> None:
    loosest = floor(ERDParams, ranges(alpha_cls=[1.0, 3.0], alpha_box=[0.5, 3.5]))
    for alpha_cls, alpha_box in ((1.0, 0.5), (3.0, 3.5), (2.0, 2.0), (1, 3)):
        assert covers(ERDParams, loosest, values(alpha_cls=alpha_cls, alpha_box=alpha_box))


def test_the_table_for_people_has_a_row_a_parameter() -> None:
    rows = {name: (default, span) for name, default, span, source in table(ERDParams) if source}
    assert list(rows) == list(params_of(ERDParams))
    assert rows["lambda_cls"] == ("1", "0.02 .. 20 log")
    assert rows["alpha_cls"] == ("2", "0.5 .. 3.5 step 0.25")
    assert rows["topk"] == ("100", "50 .. 1000 log")
    assert rows["decode_with_stride"] == ("True", "False, True")


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("lambda_cls", 2, 2.0), ("lambda_cls", "1e-3", 0.001), ("topk", "50", 50), ("T", 2.0, 2),
        ("average_eps", "True", True), ("average_eps", "False", False), ("average_eps", False, False),
        ("select", "all", "all"),
    ],
)  # fmt: skip
def test_a_value_and_the_text_that_a_record_has_of_it_take_the_declared_type(
    name: str, given: Any, expected: Any
) -> None:
    typed = params_of(ERDParams)[name].typed(given)
    assert (typed, type(typed)) == (expected, type(expected))
