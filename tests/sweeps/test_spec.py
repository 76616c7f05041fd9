"""Sweep files: those we ship, what a file may say, and what follows from it; data and mistakes apart."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from search_spaces.distributions import Choice, LogUniform, Uniform
from sweeps.spec import CONFIGS, load_specs, parse_spec, preset_values
from sweeps.spec_file import Data, Groups, SweepFile
from sweeps.spec_parameters import flat_names
from sweeps.work import base_config, compared
from tests.sweeps.sweep_files import GOOD, spec_of, text_of
from trainables.catalog import DETECTORS, METHODS
from trainables.datasets import DataConfig, Split, Splits
from trainables.objectives import Aim, Constraint, Objective

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


@pytest.fixture
def splits(tmp_path: Path) -> Splits:
    file = tmp_path / "annotations.json"
    file.write_text("{}")
    part = Split(file, tmp_path)
    return Splits(part, part, part, tuple("0123456789"))


# What a file may say.


def test_every_shipped_sweep_file_loads() -> None:
    paths = sorted(CONFIGS.glob("*.yaml"))
    assert {"demo.yaml", "erd_digits.yaml"} <= {path.name for path in paths}
    for path in paths:
        spec = parse_spec(path.read_text(), path.name, check_files=False)  # COCO is elsewhere
        assert spec.name == path.stem
        assert set().union(*spec.first_points()) <= set(spec.space)


def test_what_is_left_out_comes_from_recipe_preset_and_working_folder(tmp_path: Path) -> None:
    spec, recipe = spec_of(), DETECTORS["gfl_r18_tiny"].recipe
    assert (spec.base_epochs, spec.epochs, spec.batch_size) == (recipe.base_epochs, recipe.epochs, recipe.batch_size)
    assert (spec.methods, spec.aim, spec.compare) == ({"erd": "fixed"}, Aim((Objective("ap_all"),)), ("finetune",))
    assert spec.data == DataConfig(kind="digits")
    assert spec.storage == tmp_path / "runs"
    assert spec.folder == tmp_path / "runs" / "sweeps" / "good"
    assert spec.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert spec.max_progress == recipe.epochs


def test_the_environment_stands_behind_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALIMPSEST_STORAGE", "/elsewhere/runs")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert (str(spec_of().storage), spec_of().tracking_uri) == ("/elsewhere/runs", "http://tracking:5000")
    own = spec_of(storage="here", tracking_uri="sqlite:///own.db")
    assert (own.storage, own.tracking_uri) == (tmp_path / "here", f"sqlite:///{tmp_path}/own.db")


def test_ranges_and_defaults() -> None:
    spec = spec_of(
        search={"lambda_cls": "declared", "alpha_box": {"low": 1.0, "step": 0.5}, "cls_loss": ["kl", "l2_logit"]},
        fixed={"alpha_cls": 2, "weight_decay": 0.01},
        preset="erd_2023",
    )
    assert spec.space == {
        "erd/lambda_cls": LogUniform(0.02, 20.0, zero=True),
        "erd/alpha_box": Uniform(1.0, 3.5, 0.5),
        "erd/cls_loss": Choice(("kl", "l2_logit")),
    }
    assert spec.constants == {"erd/alpha_cls": 2.0, "optim/weight_decay": 0.01}
    assert spec.first_points()[0] == {"erd/lambda_cls": 1.0, "erd/alpha_box": 2.0, "erd/cls_loss": "l2_logit"}
    assert isinstance(spec.constants["erd/alpha_cls"], float)  # 2 and 2.0 would be two configurations
    everything = spec.all_defaults()
    assert everything == {**preset_values("erd", "erd_2023", "gfl_r18_tiny"), **spec.constants}
    assert everything["erd/cls_reduction"] == "sum_images"


def test_tables_have_a_budget_and_a_precision() -> None:
    assert (spec_of().tables.budget_gb, spec_of().tables.responses) == (8, "float32")
    own = spec_of(tables={"budget_gb": 0, "responses": "float16"}).tables
    assert (own.budget_gb, own.responses) == (0, "float16")


@pytest.mark.parametrize(
    ("compare", "joint", "chains"),
    [
        (None, True, ("finetune",)),
        (["joint"], True, ()),
        ([], False, ()),
        (["finetune", "erd/erd_2023"], False, ("finetune", "erd/erd_2023")),
        (["erd", "joint"], True, ("erd",)),
    ],
)
def test_the_joint_reference_is_one_of_what_to_compare_with(
    compare: list[str] | None, joint: bool, chains: tuple[str, ...]
) -> None:
    spec = spec_of(compare=compare)
    assert (spec.joint, spec.compare) == (joint, chains)


def test_the_store_is_in_the_storage_or_where_the_file_says(tmp_path: Path) -> None:
    assert spec_of().store == tmp_path / "runs" / "store"
    assert spec_of(storage="here").store == tmp_path / "here" / "store"
    assert spec_of(storage="here", store="../common").store == (tmp_path / "../common").resolve()
    assert spec_of(store="s3://bucket/store").store == "s3://bucket/store"


def test_numbers_with_an_exponent_are_numbers() -> None:
    text = text_of(search=None) + "search: {weight_decay: [1e-3, 5E-2], lambda_cls: [1.0e-1, 2e1]}\n"
    spec = parse_spec(text, "sweep.yaml")
    assert spec.space == {
        "optim/weight_decay": LogUniform(1e-3, 5e-2),
        "erd/lambda_cls": LogUniform(0.1, 20.0, zero=True),
    }


@pytest.mark.parametrize(
    ("scenario", "name", "first_step"),
    [
        ({"steps": [["7", "1"], ["2"]]}, "custom", ("7", "1")),
        ({"steps": [["7", "1"], ["2"]], "name": "mine"}, "mine", ("7", "1")),
        ({"named": "digits/4+3+3"}, "digits/4+3+3", ("0", "1", "2", "3")),
        ({"named": "digits/5+5", "order": list("9876543210")}, None, ("9", "8", "7", "6", "5")),
        ({"named": "digits/5+5", "order": "alphabetical"}, "digits/5+5@alphabetical", ("0", "1", "2", "3", "4")),
    ],
)
def test_a_scenario_can_be_written_out(scenario: Any, name: str | None, first_step: tuple[str, ...]) -> None:
    data = {"kind": "digits"} if "steps" in scenario else None
    spec = spec_of(scenario=scenario, data=data)
    assert spec.scenario.steps[0] == first_step
    assert name is None or spec.scenario.name == name


def test_yaml_anchors_and_merges_work() -> None:
    text = text_of(search=None, training=None) + (
        "training: &budget {base_epochs: 2, epochs: 3}\n"
        "promotion: {<<: *budget, epochs: 4, seeds: [7]}\n"
        "search: {lambda_cls: &range [0.1, 1.0], lambda_box: *range}\n"
    )
    spec = parse_spec(text, "sweep.yaml")
    assert (spec.epochs, spec.promotion.base_epochs, spec.promotion.epochs) == (3, 2, 4)
    assert spec.space["erd/lambda_box"] == spec.space["erd/lambda_cls"]


def test_identity_follows_the_content_and_not_the_comments() -> None:
    reordered = "# a comment\n" + yaml.safe_dump(dict(reversed(GOOD.items())), sort_keys=False)
    assert parse_spec(reordered, "other.yaml").identity == spec_of().identity
    assert spec_of(trials=5).identity != spec_of().identity
    assert json.loads(json.dumps(spec_of().identity)) == spec_of().identity


@pytest.mark.parametrize(
    ("scheduler", "epochs"), [({"name": "asha", "grace": 2}, 3), ({"name": "none", "grace": 9}, 1)]
)
def test_a_scheduler_can_be_switched_off_by_its_name(scheduler: Any, epochs: int) -> None:
    assert spec_of(scheduler=scheduler, training={"epochs": epochs}).scheduler.name == scheduler["name"]


def test_objectives_and_constraints_in_every_form() -> None:
    weighted = {"metric": "ap_avg", "over": [0.25, 0.75]}
    spec = spec_of(scenario="digits/4+3+3", objective=["ap_all", {"metric": "forgetting", "over": "mean"}, weighted],
                   constraints=["forgetting<=5e-2", "params_trainable <= 400000"])  # fmt: skip
    assert spec.aim.objectives == (
        Objective("ap_all"), Objective("forgetting", "mean"), Objective("ap_avg", (0.25, 0.75)),
    )  # fmt: skip
    assert spec.aim.constraints == (
        Constraint("forgetting", "<=", 0.05), Constraint("params_trainable", "<=", 400000.0),
    )  # fmt: skip
    assert spec.scheduler.name == "none"
    assert spec_of(objective={"metric": "ap_all"}).aim == spec_of(objective="ap_all").aim == spec_of().aim


def test_several_methods_have_each_their_own_parameters_and_preset() -> None:
    spec = spec_of(
        method=["erd", "finetune"],
        preset={"erd": "erd_2023"},
        search={"lambda_cls": "declared", "new_row_init": "declared",
                "finetune/new_row_init": ["focal_prior", "mean_old"]},
        fixed={"loss_scope": "new_slice"},
    )  # fmt: skip
    assert spec.methods == {"erd": "erd_2023", "finetune": "default"}
    assert spec.space["method"] == Choice(("erd", "finetune"))
    assert spec.space["finetune/new_row_init"] == Choice(("focal_prior", "mean_old"))
    assert len(spec.space["erd/new_row_init"].values) == 3
    assert spec.first_points() == [
        {"method": "erd", "erd/lambda_cls": 1.0, "erd/new_row_init": "torch_default"},
        {"method": "finetune", "finetune/new_row_init": "focal_prior"},
    ]
    assert spec.all_defaults("finetune")["finetune/loss_scope"] == "new_slice"
    assert "finetune/loss_scope" not in spec.all_defaults("erd")


def test_the_first_increment_stands_for_the_chain_in_the_search_alone() -> None:
    spec = spec_of(scenario="digits/4+3+3", budget={"steps": "first"}, report_on="digits/5+5")
    assert spec.scenario.steps == spec.whole_scenarios[0].steps[:2]
    assert spec.max_progress == spec.epochs
    assert [scenario.name for scenario in spec.report_scenarios] == ["digits/5+5"]
    assert spec.protocol == ("tuned on digits/4+3+3: first increment (tune split); reported on digits/5+5 (test split)")
    assert spec_of().protocol == "tuned on digits/5+5 (tune split); reported on the same scenario (test split)"


def test_the_study_is_shown_in_a_database_beside_the_sweep() -> None:
    assert spec_of().study_url == f"sqlite:///{spec_of().folder}/study.db"
    assert spec_of(study="postgresql+psycopg://me@host/optuna").study_url == "postgresql+psycopg://me@host/optuna"


def test_pooled_scenarios_are_one_sweep_the_shortest_first(tmp_path: Path) -> None:
    path = tmp_path / "pooled.yaml"
    path.write_text(text_of(scenario=None, scenarios=["digits/4+3+3", "digits/5+5"], pooled="worst"))
    (spec,) = load_specs(path)
    assert [scenario.name for scenario in spec.scenarios] == ["digits/5+5", "digits/4+3+3"]
    assert spec.max_progress == 3 * spec.epochs
    assert spec.aim.line == "worst over scenarios of ap_all"
    assert spec.report_scenarios == spec.whole_scenarios == spec.scenarios
    assert spec.protocol == (
        "tuned on digits/5+5, digits/4+3+3 (tune split); reported on the same scenarios (test split)"
    )


def test_several_scenarios_are_a_sweep_each(tmp_path: Path) -> None:
    path = tmp_path / "both.yaml"
    path.write_text(text_of(name="both", scenario=None, scenarios=["digits/5+5", {"named": "digits/4+3+3"}]))
    first, second = load_specs(path)
    assert (first.name, second.name) == ("both.digits-5-5", "both.digits-4-3-3")
    assert (first.scenario.name, second.scenario.name) == ("digits/5+5", "digits/4+3+3")
    assert parse_spec(second.text, "x") == second
    path.write_text(text_of())
    assert load_specs(path) == [spec_of()]


# What follows from the spec.


def test_parameters_of_method_and_optimisation_never_share_a_name() -> None:
    for method in METHODS:
        for name, detector in DETECTORS.items():
            flat = [known for known in flat_names([method], name) if "/" not in known]
            assert len(flat) == len(dataclasses.fields(METHODS[method].params)) + len(
                dataclasses.fields(detector.optim)
            )


def test_every_key_is_explained() -> None:
    sections = [SweepFile, Groups, Data, *(type(field.default) for field in SweepFile.model_fields.values())]
    models = {model for model in sections if hasattr(model, "model_fields")}
    assert len(models) >= 7
    unexplained = [
        f"{model.__name__}.{key}"
        for model in models
        for key in model.model_fields
        if f" {key}: " not in (model.__doc__ or "") and not key.startswith(("tune_", "test_"))
    ]
    assert unexplained == []


def test_trial_0_and_what_it_is_compared_with(splits: Splits) -> None:
    spec = spec_of(compare=["finetune", "erd/erd_2023"], fixed={"lambda_box": 0.5}, resources={"gpu": 1})
    base = base_config(spec, splits)
    assert (base.method, base.params["lambda_box"], base.params["lambda_cls"]) == ("erd", 0.5, 1.0)
    assert (base.device, base.seed, base.base_seed) == ("cuda", 0, 0)
    others = compared(spec, splits)
    assert {name: config.method for name, config in others.items()} == {"finetune": "finetune", "erd_2023": "erd"}
    assert others["erd_2023"].params["lambda_box"] == 1.0
    assert {config.step_identity(0)["batch_size"] for config in (base, *others.values())} == {16}
