"""What each table depends on, seen from outside: which entries of the store a step finds, and which it builds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from search_spaces.erd import PRESETS, ERDParams
from search_spaces.optim import TinyOptimParams
from search_spaces.sid import SIDParams
from tests.trainables.batches import tiny
from tests.trainables.pictures import write_pictures
from tests.trainables.trials import trial_config
from trainables import step_data
from trainables.catalog import DETECTORS
from trainables.config import Runtime, Segment, TrialConfig
from trainables.datasets.splits import Split, Splits
from trainables.environment import prepare_process
from trainables.recipes import TINY
from trainables.scenarios import custom_scenario
from trainables.step_data import training_data
from trainables.store import Store
from trainables.store_contents import entries
from trainables.table_plans import image_plan, response_plan, target_plan
from trainables.training import build_step_tables

NAMES = ("cat", "dog", "bird", "cow")
ERD = asdict(PRESETS["fixed"])
ALL, NONE = frozenset({"images", "targets", "responses"}), frozenset[str]()
SAID = frozenset({"responses"})
Keys = Mapping[str, frozenset[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prepare_process(threads=1)
    folder = tmp_path_factory.mktemp("step")
    torch.save(tiny(2).state_dict(), folder / "base.pt")
    return folder


@pytest.fixture(scope="module")
def split(folder: Path) -> Split:
    return write_pictures(folder, [(64, 96)] * 6, NAMES)


@pytest.fixture(scope="module")
def config(split: Split) -> TrialConfig:
    return trial_config(split.digest, scenario=custom_scenario([["cat", "dog"], ["bird", "cow"]]), batch_size=4)


@pytest.fixture(scope="module")
def runtime(split: Split, folder: Path) -> Runtime:
    return Runtime(splits=Splits(split, split, split, NAMES), store=folder / "store")


def built(config: TrialConfig, runtime: Runtime) -> Keys:
    """The names of the entries in the store by kind, once the tables of the second step are there."""
    store = Store(runtime.store)
    build_step_tables(config, runtime, 1, runtime.splits.train.annotations.with_name("base.pt"))
    found = entries(store)
    assert all(entry.whole for entry in found)
    return {kind: frozenset(entry.name for entry in found if entry.kind == kind) for kind in ALL}


@pytest.fixture(scope="module")
def before(config: TrialConfig, runtime: Runtime) -> Keys:
    keys = built(config, runtime)
    assert [len(names) for names in keys.values()] == [1, 1, 1]
    return keys


def turned(found: Keys, before: Keys) -> frozenset[str]:
    """The kinds of tables that are others now."""
    return frozenset(kind for kind in ALL if found[kind] != before[kind])


TEACHER = trial_config("", "finetune", "gfl_r18_small", scenario=custom_scenario([["cat"]]), batch_size=4)
OF_THE_TRIAL: dict[str, tuple[Any, frozenset[str]]] = {
    "scenario": (custom_scenario([["cat", "dog"], ["cow", "bird"]]), frozenset({"targets", "responses"})),
    "data": ("another", SAID),
    "detector": ("gfl_r18_tiny_too", frozenset({"targets", "responses"})),
    "method": ("finetune", SAID),
    "params": (ERD | {"alpha_cls": 1.0}, SAID),
    "optim": (asdict(TinyOptimParams(lr_scale=0.5)), NONE),
    "schedule": ((Segment(1, ERD | {"lambda_cls": 9.0}, asdict(TinyOptimParams())),), NONE),
    "base_epochs": (3, SAID),
    "epochs": (7, NONE),
    "batch_size": (3, SAID),
    "seed": (1, NONE),
    "base_seed": (1, SAID),
    "pretrained": ("resnet18.pth", SAID),
    "freeze_base": (True, SAID),
    "ema_momentum": (0.01, SAID),
    "threads": (2, SAID),
    "device": ("cuda", SAID),
    "devices": (2, SAID),
    "response_dtype": ("float16", SAID),
    "nms": ({"type": "voting_cluster_diounms"}, NONE),
    "teacher": (TEACHER, NONE),  # of a scenario of one step
    "checkpoint": ("teacher.pth", SAID),
    "as_base": (True, NONE),
}
OF_THE_RUNTIME: dict[str, tuple[Any, frozenset[str]]] = {
    "splits": (None, frozenset({"images", "targets", "responses"})),
    "store": (None, NONE),
    "evaluate_on": ("test", NONE),
    "report_at": ((1,), NONE),
    "workers": (1, NONE),
    "floors": ({"erd": {"alpha_cls": 1.0, "alpha_box": 2.0, "select": "elastic", "stat_scope": "all_levels",
                        "box_response": "max_logit"}}, SAID),
    "table_budget_gb": (0.5, NONE),
}  # fmt: skip


def test_every_field_is_turned() -> None:
    assert list(OF_THE_TRIAL) == [field.name for field in dataclasses.fields(TrialConfig)]
    assert list(OF_THE_RUNTIME) == [field.name for field in dataclasses.fields(Runtime)]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.gpu) if name == "device" else name for name in OF_THE_TRIAL]
)
def test_a_field_of_the_trial_turns_the_tables_that_depend_on_it(
    name: str, config: TrialConfig, runtime: Runtime, before: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DETECTORS, "gfl_r18_tiny_too", DETECTORS["gfl_r18_tiny"])
    value, expected = OF_THE_TRIAL[name]
    changes = {name: value}
    if name == "method":
        changes["params"] = {"loss_scope": "full", "new_row_init": "focal_prior"}
    found = built(replace(config, **changes), replace(runtime, store=tmp_path))
    assert turned(found, before) == expected
    assert len(found["responses"]) == (name != "method")


@pytest.mark.parametrize("name", OF_THE_RUNTIME)
def test_a_field_of_the_runtime_turns_the_tables_that_depend_on_it(
    name: str, config: TrialConfig, runtime: Runtime, before: Keys, tmp_path: Path
) -> None:
    value, expected = OF_THE_RUNTIME[name]
    if name == "splits":
        split = write_pictures(runtime.splits.train.images, [(64, 96)] * 6, NAMES, seed=2)
        value = Splits(split, split, split, NAMES)
    found = built(config, replace(runtime, **{"store": tmp_path, name: tmp_path if name == "store" else value}))
    assert turned(found, before) == expected


CHOOSES: dict[str, Any] = {
    "alpha_cls": 1.0, "alpha_box": 1.0, "select": "all", "stat_scope": "per_level", "box_response": "max_prob",
}  # fmt: skip


@pytest.mark.parametrize("param", CHOOSES)
def test_a_parameter_that_chooses_responses_counts(
    param: str, config: TrialConfig, runtime: Runtime, before: Keys, tmp_path: Path
) -> None:
    other = replace(config, params=ERD | {param: CHOOSES[param]})
    assert turned(built(other, replace(runtime, store=tmp_path)), before) == SAID


def test_no_other_parameter_counts(config: TrialConfig, runtime: Runtime, before: Keys, tmp_path: Path) -> None:
    others = {
        "lambda_cls": 9.0, "lambda_box": 9.0, "topk": 50, "thr": 0.3, "cls_loss": "kl", "T": 2, "box_weight": "none",
        "box_norm": "count", "nms_iou": 0.5, "cls_reduction": "sum_images", "box_reduction": "sum_images",
        "decode_with_stride": False, "new_row_init": "mean_old", "normaliser": "plain", "average_eps": False,
        "lr_rule": "none",
    }  # fmt: skip
    assert CHOOSES.keys() | others.keys() == ERD.keys()
    assert all(ERD[name] != value for name, value in others.items())
    other = replace(config, params=ERD | others)
    assert turned(built(other, replace(runtime, store=tmp_path)), before) == NONE


def test_trials_above_the_floor_of_their_sweep_share_its_table(
    config: TrialConfig, runtime: Runtime, tmp_path: Path
) -> None:
    shared = replace(runtime, store=tmp_path, floors=OF_THE_RUNTIME["floors"][0])
    first = built(config, shared)
    for own in ({"alpha_cls": 1.0}, {"alpha_cls": 3.5, "nms_iou": 0.5}, {"alpha_box": 3.0, "lambda_cls": 9.0}):
        assert built(replace(config, params=ERD | own), shared) == first
    looser = built(replace(config, params=ERD | {"alpha_box": 1.0}), shared)
    assert len(looser["responses"]) == 2


@pytest.mark.parametrize(
    "change", [{"flip": 0.5}, {"scale": (96, 64)}, {"pad_divisor": 64}, {"mean": (0.0, 0.0, 0.0)}], ids=str
)
def test_the_recipe_counts_where_it_changes_what_a_detector_sees(
    change: dict[str, Any], config: TrialConfig, runtime: Runtime, before: Keys, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    tiny = replace(DETECTORS["gfl_r18_tiny"], recipe=replace(TINY, **change))
    monkeypatch.setitem(DETECTORS, "gfl_r18_tiny", tiny)
    found = built(config, replace(runtime, store=tmp_path))
    of_kinds = {"scale": ALL, "mean": SAID}
    assert turned(found, before) == of_kinds.get(next(iter(change)), ALL - {"images"})


def test_another_version_of_the_code_is_another_table(
    config: TrialConfig, runtime: Runtime, before: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_data, "TABLE_VERSION", 10**6)
    assert turned(built(config, replace(runtime, store=tmp_path)), before) == ALL


def test_plans_say_about_what_is_then_written(config: TrialConfig, runtime: Runtime, tmp_path: Path) -> None:
    whole = replace(config, params=asdict(ERDParams(select="all")))
    own = replace(runtime, store=tmp_path)
    plans = {
        "images": image_plan(own.splits.train, whole.recipe, own),
        "targets": target_plan(whole, own, 1),
        "responses": response_plan(whole, own, 1),
    }
    built(whole, own)
    sizes = {entry.kind: entry.size for entry in entries(Store(own.store)) if entry.kind in plans}
    for kind, plan in plans.items():
        assert plan.num_bytes / 3 < sizes[kind] < plan.num_bytes * 3 + 4000, kind  # as much for names and identity


@pytest.mark.parametrize("detector", ["gfl_r18_tiny", "gflv2_r18_tiny", "yoloy_tiny", "nanodet_tiny"])
def test_a_plan_of_all_that_a_teacher_says_is_what_is_then_written(
    detector: str, config: TrialConfig, runtime: Runtime, tmp_path: Path
) -> None:
    own = replace(config, detector=detector, method="sid", params=asdict(SIDParams(feat="both")))
    here = replace(runtime, store=tmp_path / "store")
    torch.save(tiny(2, detector=detector).state_dict(), tmp_path / "base.pt")
    build_step_tables(own, here, 1, tmp_path / "base.pt")
    (entry,) = (entry for entry in entries(Store(here.store)) if entry.kind == "responses")
    planned = response_plan(own, here, 1).num_bytes
    assert planned < entry.size < planned + 8000  # identity, names, the grid


def test_a_table_damaged_under_a_warm_process_is_read_anew(
    config: TrialConfig, runtime: Runtime, tmp_path: Path
) -> None:
    own = replace(runtime, store=tmp_path)
    pixels = [item["inputs"].clone() for item in training_data(config, own, 1)]
    (entry,) = (tmp_path / "images").iterdir()
    file = entry / "pixels.bin"
    content = file.read_bytes()
    file.write_bytes(bytes(len(content)))
    found = training_data(config, own, 1)
    assert file.read_bytes() == content
    assert all(torch.equal(item["inputs"], image) for item, image in zip(found, pixels, strict=True))
