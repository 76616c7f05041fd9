"""What determines the weights of a step, and so is shared or not; the clock of a chain; its schedule."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from search_spaces.erd import PRESETS
from search_spaces.optim import TinyOptimParams
from tests.trainables.trials import trial_config
from trainables import config as config_module
from trainables.catalog import DETECTORS
from trainables.config import Runtime, Segment, TrialConfig, under_schedule
from trainables.scenarios import Scenario, named_scenario

CONFIG = trial_config(scenario=named_scenario("digits/4+3+3"), base_epochs=10, epochs=5, batch_size=16)
OF_THE_BASE_STEP: dict[str, Any] = {
    "data": "another",
    "detector": "gfl_r18",
    "base_epochs": 6,
    "batch_size": 8,
    "base_seed": 1,
    "pretrained": "resnet18.pth",
    "freeze_base": True,
    "device": "cuda",
    "devices": 2,
    "threads": 2,
    "ema_momentum": 0.001,
}
OF_LATER_STEPS: dict[str, Any] = {
    "method": "finetune",
    "params": asdict(PRESETS["erd_2023"]),
    "optim": asdict(TinyOptimParams(lr_scale=0.5)),
    "epochs": 3,
    "seed": 1,
    "response_dtype": "float16",
}
STEPS = range(len(CONFIG.scenario.steps))


def test_every_field_is_turned() -> None:
    of_one_step = {"teacher", "checkpoint", "as_base"}
    assert {"scenario", "schedule", "nms"} | of_one_step | set(OF_THE_BASE_STEP) | set(OF_LATER_STEPS) == {
        f.name for f in dataclasses.fields(TrialConfig)
    }


@pytest.mark.parametrize(("name", "value"), {**OF_THE_BASE_STEP, **OF_LATER_STEPS}.items())
def test_a_field_that_matters_changes_the_identity_of_later_steps(name: str, value: object) -> None:
    turned = replace(CONFIG, **{name: value})
    assert turned.config_id != CONFIG.config_id
    same = [turned.step_identity(step) == CONFIG.step_identity(step) for step in STEPS]
    assert same == [name in OF_LATER_STEPS, False, False]


@pytest.mark.parametrize("param", sorted(CONFIG.params))
def test_every_parameter_of_the_method_counts(param: str) -> None:
    turned = replace(CONFIG, params={**CONFIG.params, param: "another"})
    assert turned.config_id != CONFIG.config_id
    assert turned.step_identity(0) == CONFIG.step_identity(0)


@pytest.mark.parametrize("param", sorted(CONFIG.optim))
def test_every_parameter_of_the_optimisation_counts(param: str) -> None:
    assert replace(CONFIG, optim={**CONFIG.optim, param: 7}).config_id != CONFIG.config_id


def test_the_base_step_knows_nothing_of_method_and_search() -> None:
    text = json.dumps(CONFIG.step_identity(0))
    assert not {"method", "params", "optim", "epochs", "seed"} & set(CONFIG.step_identity(0))
    assert "lambda_cls" not in text
    assert "erd" not in text


def test_classes_count_in_their_order_and_steps() -> None:
    by_steps = {
        "as it is": CONFIG.scenario.steps,
        "swapped inside a step": (("1", "0", "2", "3"), *CONFIG.scenario.steps[1:]),
        "other boundary": (CONFIG.scenario.steps[0], ("4", "5"), ("6", "7", "8", "9")),
        "one step fewer": CONFIG.scenario.steps[:2],
    }
    configs = [replace(CONFIG, scenario=Scenario("custom", steps)) for steps in by_steps.values()]
    assert len({config.config_id for config in configs}) == len(by_steps)
    shared = [config.step_identity(0) == CONFIG.step_identity(0) for config in configs]
    assert shared == [True, False, True, True]  # a base step does not know what comes later


def test_a_step_depends_on_earlier_classes_alone() -> None:
    longer = replace(CONFIG, scenario=Scenario("custom", (*CONFIG.scenario.steps[:2], ("9", "8"))))
    same = [longer.step_identity(step) == CONFIG.step_identity(step) for step in STEPS]
    assert same == [True, True, False]


def test_backbone_weights_count_by_their_bytes_wherever_they_lie(tmp_path: Path) -> None:
    for name, text in (("one.pth", "weights"), ("copy.pth", "weights"), ("other.pth", "other weights")):
        (tmp_path / name).write_text(text)
    one, copy, other = (
        replace(CONFIG, pretrained=str(tmp_path / name)).config_id for name in ("one.pth", "copy.pth", "other.pth")
    )
    assert one == copy != other


def test_names_and_the_order_of_keys_do_not_count() -> None:
    renamed = replace(CONFIG, scenario=replace(CONFIG.scenario, name="whatever"))
    reordered = replace(CONFIG, params=dict(reversed(CONFIG.params.items())))
    assert renamed.config_id == reordered.config_id == CONFIG.config_id


def test_what_does_not_change_numbers_is_not_part_of_a_configuration() -> None:
    of_runtime = {f.name for f in dataclasses.fields(Runtime)}
    assert {"store", "workers", "evaluate_on", "report_at", "floors", "table_budget_gb"} <= of_runtime
    assert not of_runtime & {f.name for f in dataclasses.fields(TrialConfig)}


def test_the_precision_of_responses_counts_where_there_is_a_teacher() -> None:
    naive = replace(CONFIG, method="finetune", params={"loss_scope": "full"})
    for config, same in ((CONFIG, [True, False, False]), (naive, [True, True, True])):
        half = replace(config, response_dtype="float16")
        assert [half.step_identity(step) == config.step_identity(step) for step in STEPS] == same


def test_another_version_or_recipe_is_another_result(monkeypatch: pytest.MonkeyPatch) -> None:
    before = CONFIG.config_id
    monkeypatch.setattr(config_module, "TRAINING_VERSION", 10**6)
    of_version = CONFIG.config_id
    monkeypatch.undo()
    tiny = DETECTORS["gfl_r18_tiny"]
    monkeypatch.setitem(DETECTORS, "gfl_r18_tiny", replace(tiny, recipe=replace(tiny.recipe, clip_norm=5.0)))
    assert len({before, of_version, CONFIG.config_id}) == 3


def test_an_identity_is_json_and_reads_back() -> None:
    for step in STEPS:
        identity = CONFIG.step_identity(step)
        assert json.loads(json.dumps(identity, allow_nan=False))["detector"] == "gfl_r18_tiny"


def test_a_joint_reference_is_shared_by_all_methods_and_is_a_base_step() -> None:
    other = replace(CONFIG, **OF_LATER_STEPS)
    for step in STEPS:
        joint = CONFIG.joint(step)
        assert joint.scenario.steps == (CONFIG.scenario.seen(step),)
        assert joint.config_id == other.joint(step).config_id
        assert joint.step_identity(0) == joint.step_identity(0) | {"base": [10, 0]}
    assert CONFIG.joint(0).step_identity(0) == CONFIG.step_identity(0)  # the first reference is the base step itself


def test_one_clock_counts_incremental_epochs() -> None:
    clock = [CONFIG.progress_at(step, epoch) for step in STEPS for epoch in range(1, CONFIG.epochs + 1)]
    assert clock == [0] * 5 + list(range(1, 11))
    assert CONFIG.progress_at(2) == CONFIG.progress_at(1, CONFIG.epochs)


ALONE = replace(CONFIG, scenario=named_scenario("digits/10"), method="finetune", params={"new_row_init": "mean_old"})


def test_the_only_step_of_a_scenario_counts_its_own_epochs_and_seed_unless_it_is_a_base_step() -> None:
    assert [ALONE.progress_at(0, epoch) for epoch in (0, 3, 5)] == [0, 3, 5]
    base = ALONE.joint(0)
    assert [base.progress_at(0, epoch) for epoch in (0, 3, 5)] == [0, 0, 0]
    assert ALONE.end == 5
    for name in ("seed", "epochs"):
        assert replace(ALONE, **{name: 7}).config_id != ALONE.config_id
        assert replace(base, **{name: 7}).config_id == base.config_id


def test_who_teaches_the_only_step_counts_whole(tmp_path: Path) -> None:
    for name in ("one.pth", "other.pth"):
        (tmp_path / name).write_text(name)
    base = ALONE.joint(0)
    teachers: list[Any] = [
        None,
        base,
        replace(base, base_seed=1),
        replace(base, detector="gfl_r18"),
        replace(ALONE, teacher=base),
        *(replace(base, checkpoint=str(tmp_path / name)) for name in ("one.pth", "other.pth")),
    ]
    assert len({replace(ALONE, teacher=teacher).config_id for teacher in teachers}) == len(teachers)
    reordered = replace(teachers[-1], scenario=named_scenario("digits/10", "shuffle:1"))
    assert reordered.config_id != teachers[-1].config_id  # else its classes would never be compared with the file's
    assert replace(ALONE, teacher=base).taught_by(0) == (base, 0)
    assert CONFIG.taught_by(0) is None
    assert CONFIG.taught_by(2) == (CONFIG, 1)


def test_how_a_detector_is_tested_changes_its_scores_and_not_its_training() -> None:
    turned = replace(CONFIG, nms={"type": "voting_cluster_diounms"})
    assert turned.config_id != CONFIG.config_id
    assert all(turned.step_identity(step) == CONFIG.step_identity(step) for step in STEPS)


EARLY, LATE = dict(CONFIG.params) | {"lambda_cls": 0.5}, dict(CONFIG.params) | {"lambda_cls": 0.1}


def scheduled(*before: tuple[int, dict[str, Any]]) -> TrialConfig:
    """`CONFIG`, whose steps of five epochs end at 5 and 10, after other parameters."""
    return replace(CONFIG, schedule=tuple(Segment(until, params, CONFIG.optim) for until, params in before))


def test_what_acted_before_counts_from_the_step_on_in_which_it_acted() -> None:
    turned = scheduled((7, EARLY))
    assert turned.step_identity(0) == CONFIG.step_identity(0)
    assert turned.step_identity(1) == replace(CONFIG, params=EARLY).step_identity(1)  # all of the step under it
    assert turned.step_identity(2) not in (CONFIG.step_identity(2), replace(CONFIG, params=EARLY).step_identity(2))
    assert scheduled((3, EARLY)).step_identity(1) != scheduled((4, EARLY)).step_identity(1)


def test_what_changes_nothing_is_no_schedule() -> None:
    same = scheduled((3, dict(CONFIG.params)), (6, dict(CONFIG.params)))
    assert all(same.step_identity(step) == CONFIG.step_identity(step) for step in STEPS)


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (0, 10, [(3, 0.5), (7, 0.1), (10, 1.0)]),
        (0, 5, [(3, 0.5), (5, 0.1)]),
        (5, 10, [(7, 0.1), (10, 1.0)]),
        (7, 10, [(10, 1.0)]),
        (0, 3, [(3, 0.5)]),
    ],
)
def test_segments_are_what_acts_between_two_times(first: int, last: int, expected: list[tuple[int, float]]) -> None:
    found = scheduled((3, EARLY), (7, LATE)).segments(first, last)
    assert [(one.until, one.params["lambda_cls"]) for one in found] == expected


def test_a_trial_that_changed_on_its_way_is_promoted_as_it_was() -> None:
    acted = scheduled((3, EARLY)).segments(0, 10)
    assert under_schedule(replace(CONFIG, params=LATE), acted) == scheduled((3, EARLY))
