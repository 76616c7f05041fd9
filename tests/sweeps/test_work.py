"""From a spec to the configuration of a trial and the place where it runs: the floor that all its trials share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from search_spaces.params import covers
from sweeps.searcher import IncrementalSearch
from sweeps.work import STUDENT_ALONE, base_config, base_name, compared, response_floor, runtime, teachers
from tests.sweeps.sweep_files import spec_of
from trainables.catalog import METHODS
from trainables.datasets import Split, Splits

OWN = {"alpha_cls": 2.0, "alpha_box": 2.0, "select": "elastic", "stat_scope": "all_levels"}
OWN |= {"box_response": "max_logit"}


@pytest.fixture
def splits(tmp_path: Path) -> Splits:
    file = tmp_path / "annotations.json"
    file.write_text("{}")
    part = Split(file, tmp_path)
    return Splits(part, part, part, tuple("0123456789"))


@pytest.mark.parametrize(
    ("search", "fixed", "expected"),
    [
        ({"lambda_cls": "declared"}, {}, OWN),
        ({"alpha_cls": "declared"}, {}, OWN | {"alpha_cls": 0.5}),
        ({"alpha_cls": [1.5, 3.0], "alpha_box": "declared"}, {}, OWN | {"alpha_cls": 1.5, "alpha_box": 0.5}),
        ({"alpha_cls": [2.5, 3.0]}, {}, OWN),  # trial 0 has the preset's 2.0
        ({"lambda_cls": "declared"}, {"alpha_box": 1.25}, OWN | {"alpha_box": 1.25}),
        (
            {"thr": "declared"},
            {"select": "fixed_thr"},
            {"select": "fixed_thr", "thr": 0.05, "box_response": "max_logit"},
        ),
        ({"topk": [60, 600]}, {"select": "topk"}, {"select": "topk", "topk": 600, "box_response": "max_logit"}),
        ({"select": ["elastic", "all"]}, {}, {}),
        ({"stat_scope": ["all_levels", "per_level"], "alpha_cls": "declared"}, {}, {}),
    ],
)
def test_the_floor_of_a_search(search: dict[str, Any], fixed: dict[str, Any], expected: dict[str, Any]) -> None:
    assert response_floor(spec_of(search=search, fixed=fixed), "erd") == expected


def test_a_range_in_whole_numbers_has_the_same_floor() -> None:
    whole, broken = (response_floor(spec_of(search={"alpha_cls": ends}), "erd") for ends in ([1, 3], [1.0, 3.0]))
    assert whole == broken
    assert {name: type(value) for name, value in whole.items()} == {name: type(value) for name, value in broken.items()}


@pytest.mark.usefixtures("in_an_empty_folder")
def test_the_floor_covers_every_trial_that_the_search_proposes() -> None:
    spec = spec_of(search={"alpha_cls": [0.75, 3.0], "alpha_box": "declared", "nms_iou": "declared"})
    spec.folder.mkdir(parents=True)
    search, loosest = IncrementalSearch(spec), response_floor(spec, "erd")
    defaults = {name.removeprefix("erd/"): value for name, value in spec.all_defaults().items() if "erd/" in name}
    for number in range(12):
        chosen = search.suggest(str(number))["erd"]
        assert covers(METHODS[spec.method].params, loosest, defaults | chosen)


def test_tables_reach_the_trial_and_where_it_runs(splits: Splits) -> None:
    spec = spec_of(tables={"budget_gb": 0.5, "responses": "float16"}, search={"alpha_cls": "declared"})
    where = runtime(spec, splits)
    assert (where.table_budget_gb, where.floors) == (0.5, {"erd": OWN | {"alpha_cls": 0.5}})
    assert base_config(spec, splits).response_dtype == "float16"
    assert base_config(spec_of(), splits).response_dtype == "float32"


@pytest.mark.parametrize(("store", "expected"), [(None, "runs/store"), ("there", "there"), ("memory://a/b", None)])
def test_trials_share_the_store_of_the_spec(
    store: str | None, expected: str | None, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PALIMPSEST_STORAGE", raising=False)
    assert runtime(spec_of(store=store), splits).store == (tmp_path / expected if expected else store)


def test_assistants_are_taught_as_the_sweep_says(splits: Splits) -> None:
    chain = [{"detector": name, "train": True} for name in ("gfl_r34_small", "gfl_r18_small")]
    spec = spec_of(
        scenario="digits/10", method="ld", preset="main", fixed={"w_kd": 1.0}, search={"w_ld": "declared"},
        teacher=chain, training={"epochs": 7}, seed=3,
    )  # fmt: skip
    first, assistant = teachers(spec, splits).values()
    assert (first.detector, first.method, first.teacher, first.end) == ("gfl_r34_small", "finetune", None, 0)
    assert (assistant.detector, assistant.method, assistant.teacher, assistant.end) == ("gfl_r18_small", "ld", first, 7)
    assert (assistant.params["w_kd"], assistant.params["w_vlr"]) == (1.0, 0.0)
    student = base_config(spec, splits)
    assert student.teacher == assistant
    assert (student.first_step, student.seed, first.base_seed) == (0, 3, 3)
    alone = compared(spec, splits)[STUDENT_ALONE]
    assert alone.teacher is None


@pytest.mark.parametrize(
    ("fixed", "preset", "name"),
    [
        ({}, None, "erd fixed"),
        ({}, "erd_2023", "erd_2023"),
        ({"lambda_box": 5.0}, None, "erd fixed with own values"),
        ({"weight_decay": 0.01}, "erd_2023", "erd_2023 with own values"),
    ],
)
def test_a_row_has_a_presets_name_only_where_it_has_its_values(
    fixed: dict[str, Any], preset: str | None, name: str
) -> None:
    assert base_name(spec_of(fixed=fixed, preset=preset), "erd") == name
