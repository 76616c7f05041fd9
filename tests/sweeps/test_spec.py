"""Sweep files: those we ship, what a file may say, and every mistake told at once, each with its key."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from search_spaces.distributions import Choice, LogUniform, Uniform
from sweeps.spec import CONFIGS, load_spec, load_specs, parse_spec, preset_values
from sweeps.spec_file import Data, Groups, SweepFile
from sweeps.spec_parameters import flat_names
from sweeps.work import base_config, compared
from tests.sweeps.sweep_files import GOOD, spec_of, text_of
from trainables.catalog import DETECTORS, METHODS
from trainables.datasets import DataConfig, Split, Splits
from trainables.errors import SpecError
from trainables.objectives import Aim, Constraint, Objective


def problems_of(**changes: Any) -> tuple[str, ...]:
    with pytest.raises(SpecError) as raised:
        spec_of(**changes)
    assert raised.value.subject == "sweep.yaml"
    return raised.value.problems


def the_problem(**changes: Any) -> str:
    (line,) = problems_of(**changes)
    return line


@pytest.fixture
def splits(tmp_path: Path) -> Splits:
    file = tmp_path / "annotations.json"
    file.write_text("{}")
    part = Split(file, tmp_path)
    return Splits(part, part, part, tuple("0123456789"))


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("PALIMPSEST_STORAGE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


# What a file may say.


def test_every_shipped_sweep_file_loads() -> None:
    paths = sorted(CONFIGS.glob("*.yaml"))
    assert {"demo.yaml", "erd_digits.yaml"} <= {path.name for path in paths}
    for path in paths:
        spec = load_spec(path)
        assert spec.name == path.stem
        assert set(spec.first_points()[0]) == set(spec.space)


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


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"scenarios": ["digits/5+5"], "scenario": None}, ["scenarios: needs a list of at least two; "]),
        ({"scenarios": ["digits/5+5", "digits/5+5"], "scenario": None}, ["scenarios: must all differ, but got "]),
        ({"scenarios": ["digits/5+5", "digits/5+6"], "scenario": None}, ["scenario: 'digits/5+6' is unknown; "]),
        (
            {"scenarios": ["digits/5+5", "digits/4+3+3"], "scenario": None, "trials": 0, "seed": -1},
            ["trials: input should be", "seed: input should be"],
        ),
        ({"scenarios": "digits/5+5", "scenario": None}, ["scenarios: input should be a valid list"]),
        (
            {"scenarios": ["digits/5+5", "digits/5+6"], "scenario": None, "pooled": "mean"},
            ["scenario: 'digits/5+6' is unknown; "],
        ),
        (
            {
                "scenarios": ["digits/5+5", "digits/4+3+3"],
                "scenario": None,
                "pooled": "rank",
                "objective": ["ap_new", "forgetting"],
            },
            ["pooled: `rank` is of one objective, but there are several"],
        ),
    ],
)
def test_mistakes_with_several_scenarios(changes: dict[str, Any], lines: list[str], tmp_path: Path) -> None:
    path = tmp_path / "both.yaml"
    path.write_text(text_of(**changes))
    with pytest.raises(SpecError) as raised:
        load_specs(path)
    told = raised.value.problems
    assert len(told) == len(lines)
    assert all(any(one.startswith(line) for one in told) for line in lines)


# Data.


def coco(root: Path) -> None:
    (root / "annotations").mkdir(parents=True)
    for name in ("train2017", "val2017"):
        (root / name).mkdir()
        (root / "annotations" / f"instances_{name}.json").write_text("{}")


def voc(root: Path) -> None:
    for name in ("trainval", "test"):
        file = root / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")


CUSTOM = {"kind": "custom"} | {
    f"{part}_{what}": path
    for part in ("train", "test")
    for what, path in (("annotations", f"{part}.json"), ("images", part))
}


def test_coco_is_looked_for_and_its_path_is_absolute(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"scenario": "coco/40+40", "detector": "gfl_r50", "data": {"root": "coco"}}
    assert the_problem(**changes) == f"data.root: there is no folder {tmp_path}/coco"
    coco(tmp_path / "coco")
    assert spec_of(**changes).data == DataConfig(kind="coco", root=str(tmp_path / "coco"))
    (tmp_path / "coco" / "val2017").rmdir()
    (tmp_path / "coco" / "annotations" / "instances_train2017.json").unlink()
    assert problems_of(**changes) == (
        f"data.root: there is no file {tmp_path}/coco/annotations/instances_train2017.json",
        f"data.root: there is no folder {tmp_path}/coco/val2017",
    )


def test_voc_is_looked_for(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"scenario": "voc/15+5", "detector": "gfl_r18", "data": {"root": "."}}
    test, train = problems_of(**changes)
    assert test.startswith(f"data.root: {tmp_path} must hold VOC2007/ImageSets/Main/test.txt or ")
    assert train.startswith(f"data.root: {tmp_path} must hold ImageSets/Main/trainval.txt")
    voc(tmp_path)
    assert spec_of(**changes).data.root == str(tmp_path)


def test_custom_files_are_looked_for_from_the_root_on(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"scenario": {"steps": [["nut"], ["bolt"]]}, "data": CUSTOM}
    assert problems_of(**changes) == (
        f"data.train_annotations: there is no file {tmp_path}/train.json",
        f"data.train_images: there is no folder {tmp_path}/train",
        f"data.test_annotations: there is no file {tmp_path}/test.json",
        f"data.test_images: there is no folder {tmp_path}/test",
    )
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        (tmp_path / f"{part}.json").write_text("{}")
    split = spec_of(**changes).data.split("train")
    assert split == Split(tmp_path / "train.json", tmp_path / "train")
    assert spec_of(**changes, storage="runs").data.root == str(tmp_path)


def test_weights_are_a_file_that_exists_or_a_url(tmp_path: Path) -> None:
    assert (
        the_problem(training={"pretrained": "r18.pth"}) == f"training.pretrained: there is no file {tmp_path}/r18.pth"
    )
    (tmp_path / "r18.pth").write_text("")
    assert spec_of(training={"pretrained": "r18.pth"}).pretrained == f"{tmp_path}/r18.pth"
    url = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
    assert spec_of(training={"pretrained": url}).pretrained == url


def test_the_keys_of_data_are_those_of_its_configuration() -> None:
    assert list(Data.model_fields) == [field.name for field in fields(DataConfig)]


# Mistakes.

MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"name": "a b"}, "name: string should match pattern"),
    ({"name": None}, "name: is missing"),
    ({"trails": 4}, "trails: unknown key; did you mean 'trials'? available: name, scenario, "),
    ({"training": {"epoch": 4}}, "training.epoch: unknown key; did you mean 'epochs'? available: base_epochs, "),
    ({"training": {"epochs": 0}}, "training.epochs: input should be greater than or equal to 1, but got 0"),
    ({"training": 3}, "training: must hold keys and values, but got 3"),
    ({"trials": 2.5}, "trials: input should be a valid integer, but got 2.5"),
    ({"trials": "8"}, "trials: input should be a valid integer, but got '8'"),
    ({"trials": True}, "trials: input should be a valid integer, but got True"),
    ({"seed": -1}, "seed: input should be greater than or equal to 0, but got -1"),
    ({"seed": 2**32}, "seed: input should be less than 4294967296, but got 4294967296"),
    ({"scenario": "digits/5+6"}, "scenario: 'digits/5+6' is unknown; available: "),
    ({"scenario": "digits/10"}, "scenario: a sweep needs at least two steps, but digits/10 has 1"),
    ({"scenario": 5}, "scenario: must hold keys and values, but got 5"),
    ({"scenario": {}, "data": {"kind": "digits"}}, "scenario: either `steps` or `named` must be given"),
    ({"scenario": {"named": "digits/5+5", "oder": "x"}}, "scenario.oder: unknown key; did you mean 'order'? "),
    ({"scenario": {"named": "digits/5+5", "order": "random"}}, "scenario.order: 'random' is unknown; available: "),
    ({"scenario": {"named": "digits/5+5", "order": ["1"]}}, "scenario.order: must name each class once; missing "),
    ({"scenario": {"named": "digits/5+5", "name": "x"}}, "scenario.name: acts only with `steps`"),
    (
        {"scenario": {"steps": [["1"], ["2"]], "order": "alphabetical"}, "data": {"kind": "digits"}},
        "scenario.order: acts only with `named`",
    ),
    ({"scenario": {"steps": [["1"], []]}, "data": {"kind": "digits"}}, "scenario: step 2 is empty"),
    ({"scenario": {"steps": [["1"], ["1"]]}, "data": {"kind": "digits"}}, "scenario: class '1' is named 2 times"),
    ({"scenario": {"steps": [["1"], ["x"]]}, "data": {"kind": "digits"}}, "scenario: digits has no class 'x'; "),
    ({"scenario": {"steps": [["1"], ["2"]]}}, "data.kind: is missing, and follows only from a named scenario; "),
    ({"scenario": {"steps": [[1], ["2"]]}}, "scenario.steps.0.0: must be a text, but got 1; put it in quotes"),
    ({"data": {"kind": "digit"}}, "data.kind: 'digit' is unknown; available: digits, coco, voc, custom"),
    ({"data": {"sizes": [1, 2]}}, "data.sizes: three numbers above 0 (train, tune, test) must be given"),
    ({"data": {"sizes": [1, 2, "3"]}}, "data.sizes.2: input should be a valid integer, but got '3'"),
    ({"data": {"root": 5}}, "data.root: must be a text, but got 5; put it in quotes"),
    ({"data": {"train_images": "x"}}, "data.train_images: only custom data have it, but kind is digits"),
    ({"data": {"kind": "coco"}}, "data.root: coco needs the folder of its official layout"),
    ({"detector": "gfl_r18_tny"}, "detector: 'gfl_r18_tny' is unknown; did you mean 'gfl_r18_tiny'? available: "),
    ({"method": "erdd"}, "method: 'erdd' is unknown; did you mean 'erd'? available: finetune, erd"),
    ({"preset": "fixt"}, "preset: 'fixt' is unknown to method 'erd'; did you mean 'fixed'? available: fixed, "),
    ({"search": {}}, "search: at least one parameter must be searched; available: lambda_cls, "),
    ({"search": ["lambda_cls"]}, "search: must hold keys and values, but got ['lambda_cls']"),
    ({"search": {"alpha_clss": "declared"}}, "search.alpha_clss: method 'erd' on 'gfl_r18_tiny' has no "),
    ({"search": {"alpha_cls": 2.0}}, "search.alpha_cls: takes `declared`, a range or a list, but got 2.0; a single "),
    ({"search": {"alpha_cls": [3, 1]}}, "search.alpha_cls: `low < high` must hold for alpha_cls, but got "),
    ({"search": {"cls_loss": ["l3"]}}, "search.cls_loss: cls_loss='l3' is unknown; available: l2_logit, "),
    ({"search": {"cls_loss": ["kl", "bce"]}}, "search.cls_loss: the preset's l2_logit must be among the choices, "),
    ({"search": {"topk": "declared"}}, "search.topk: acts only with select: topk, but select is elastic"),
    ({"fixed": {"topk": 100}}, "fixed.topk: acts only with select: topk, but select is elastic"),
    ({"fixed": {"select": "all"}}, "search.alpha_cls: acts only with select: elastic, but select is all"),
    ({"fixed": {"lambda_box": -1.0}}, "fixed.lambda_box: `0.02 <= lambda_box <= 20` must hold, but got "),
    ({"fixed": {"lambda_cls": 1.0}}, "fixed.lambda_cls: is searched as well; one of the two must go"),
    ({"fixed": {"lambda_bx": 1.0}}, "fixed.lambda_bx: method 'erd' on 'gfl_r18_tiny' has no such parameter; did "),
    ({"preset": "erd_2022"}, "training.batch_size: `batch_size = 2` must hold for preset 'erd_2022', but got 16"),
    ({"fixed": {"images_per_device": 8}}, "training.batch_size: `batch_size = 8` must hold for preset 'fixed', "),
    ({"compare": ["erd/erd_2022"]}, "compare: `batch_size = 2` must hold for 'erd/erd_2022', but got 16"),
    ({"compare": ["finetun"]}, "compare: 'finetun' is unknown; did you mean 'finetune'? available: "),
    ({"objective": "ap_al"}, "objective: 'ap_al' is unknown; did you mean 'ap_all'? available: "),
    ({"objective": []}, "objective: value should have at least 1 item"),
    ({"objective": ["ap_all", "ap_al"]}, "objective: 'ap_al' is unknown; did you mean 'ap_all'? available: "),
    ({"objective": ["ap_all", "ap_all"]}, "objective: must all differ, but got ap_all, ap_all"),
    ({"objective": {"metric": "ap_all", "ower": "mean"}}, "objective.0.ower: unknown key; did you mean 'over'? "),
    ({"objective": {"metric": "ap_all", "over": "max"}}, "objective.0.over: input should be "),
    ({"objective": {"metric": "ap_all", "over": [1.0, 2.0]}}, "objective.over: needs a weight for each of the 1 "),
    ({"objective": {"metric": "ap_all", "over": [0.0]}}, "objective.over: weights must be 0 or more, and not all 0"),
    ({"constraints": ["forgetting < 0.05"]}, "constraints: must be like `forgetting <= 0.05`, with <= or >= and a "),
    ({"constraints": ["forgetting <= nan"]}, "constraints: must be like `forgetting <= 0.05`, with <= or >= and a "),
    ({"constraints": ["forgeting <= 0.05"]}, "constraints: 'forgeting' is unknown; did you mean 'forgetting'? "),
    ({"constraints": "forgetting <= 0.05"}, "constraints: input should be a valid list, but got 'forgetting <= 0.05'"),
    ({"pooled": "mean"}, "pooled: acts only with several `scenarios`, but there are 0"),
    ({"scenarios": ["digits/5+5"], "pooled": "mean"}, "scenario: and `scenarios` must not both be given"),
    ({"sampler": "tpee"}, "sampler: 'tpee' is unknown; did you mean 'tpe'? available: tpe, gp, cmaes, "),
    (
        {"sampler": "cmaes", "objective": ["ap_new", "forgetting"]},
        "sampler: 'cmaes' takes one objective, but got 2; available: tpe, gp, ",
    ),
    ({"sampler": "cmaes", "constraints": ["ap_old >= 0.5"]}, "sampler: 'cmaes' takes no constraints; available: "),
    (
        {"sampler": "grid", "search": {"lambda_cls": "declared"}},
        "search.erd/lambda_cls: a grid needs choices, `{values: [...]}` or a `step`, but got a range",
    ),
    ({"search": {"lambda_cls": {"values": []}}}, "search.lambda_cls: lambda_cls takes `values` alone, a list, but "),
    ({"search": {"lambda_cls": {"values": [1, -1]}}}, "search.lambda_cls: `0.02 <= lambda_cls <= 20` must hold, but "),
    ({"method": ["erd", "erd"]}, "method: must all differ, but got erd, erd"),
    ({"method": ["erd", "finetun"]}, "method: 'finetun' is unknown; did you mean 'finetune'? available: "),
    ({"method": []}, "method: value should have at least 1 item"),
    ({"method": ["erd", "finetune"], "preset": "fixed"}, "preset: with several methods, must name the method of each"),
    ({"preset": {"finetune": "default"}}, "preset.finetune: the sweep has no such method; available: erd"),
    (
        {"method": ["erd", "finetune"], "search": {"lamda_cls": "declared"}},
        "search.lamda_cls: none of the methods erd, finetune on 'gfl_r18_tiny' has such a parameter; did you mean ",
    ),
    (
        {"search": {"select": ["elastic", "all"], "topk": "declared"}},
        "search.topk: acts only with select: topk, but search.select has elastic, all",
    ),
    ({"scheduler": {"name": "bohb"}}, "scheduler.name: input should be 'asha', 'hyperband', 'median', 'pbt' or 'none'"),
    (
        {"scheduler": {"name": "asha"}, "objective": ["ap_new", "forgetting"]},
        "scheduler.name: must be `none` with several objectives or a cost, but got asha",
    ),
    ({"scheduler": {"name": "pbt"}, "method": ["erd", "finetune"]}, "scheduler.name: pbt trains one method, but "),
    ({"budget": {"hours": 0}}, "budget.hours: input should be greater than 0, but got 0"),
    ({"budget": {"gpu_hours": 1.0}}, "budget.gpu_hours: acts only where `resources.gpu` is above 0"),
    ({"budget": {"patience": 3}, "objective": ["ap_new", "forgetting"]}, "budget.patience: acts only with one obj"),
    ({"budget": {"steps": "two"}}, "budget.steps: input should be 'first' or 'all', but got 'two'"),
    ({"seeds": 3, "objective": ["ap_new", "forgetting"]}, "seeds: leaders are ranked by one objective, but there are"),
    ({"report_on": "digits/5+6"}, "report_on: 'digits/5+6' is unknown; available: "),
    ({"report_on": "digits/10"}, "report_on: needs at least two steps, but digits/10 has 1"),
    ({"report_on": "coco/40+40"}, "report_on: must have the data's classes, but airplane, "),
    ({"study": "mysql://me@host/optuna"}, "study: must be `sqlite:///<file>` or `postgresql+psycopg://"),
    ({"study": "postgresql://me:secret@host/optuna"}, "study: must hold no password, since sweep files are recorded"),
    ({"scheduler": {"grace": 5}}, "scheduler.grace: `grace < 5` (epochs of all incremental steps) must hold, "),
    ({"resources": {"gpu": 1.5}}, "resources.gpu: must be a whole number above 1, but got 1.5"),
    ({"resources": {"gpu": float("inf")}}, "resources.gpu: input should be a finite number, but got inf"),
    ({"tables": {"budget_gb": -1}}, "tables.budget_gb: input should be greater than or equal to 0, but got -1"),
    ({"tables": {"budget_gb": float("inf")}}, "tables.budget_gb: input should be a finite number, but got inf"),
    ({"tables": {"budget": 1}}, "tables.budget: unknown key; did you mean 'budget_gb'? available: budget_gb, "),
    ({"tables": {"responses": "float64"}}, "tables.responses: input should be 'float32' or 'float16', but got "),
    ({"tables": 8}, "tables: must hold keys and values, but got 8"),
    ({"store": 5}, "store: must be a text, but got 5; put it in quotes"),
    ({"compare": ["jont"]}, "compare: 'jont' is unknown; did you mean 'joint'? available: joint, "),
    ({"promotion": {"seeds": []}}, "promotion.seeds: list should have at least 1 item"),
    ({"promotion": {"seeds": [1, 1]}}, "promotion.seeds: must all differ, but got [1, 1]"),
    ({"promotion": {"seeds": [-1]}}, "promotion.seeds.0: input should be greater than or equal to 0, but got -1"),
    ({"tracking_uri": "mlruns"}, "tracking_uri: must be a database or a server (sqlite:///<file>, "),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "line"), MISTAKES, ids=[line.partition(" ")[0] for _, line in MISTAKES])
def test_a_mistake_is_one_line_with_its_key(changes: dict[str, Any], line: str) -> None:
    assert the_problem(**changes).startswith(line)


def test_all_mistakes_are_told_at_once() -> None:
    told = problems_of(
        name="a b",
        trails=4,
        scenario={"named": "digits/5+5", "order": "random"},
        data={"kind": "digits", "seed": -1},
        search={"alpha_cls": 2.0, "lambda_cls": [2, 1]},
        fixed={"lambda_cls": 1.0, "thr": 0.1},
        training={"epochs": 0, "batch": 4},
        compare=["finetun"],
        objective="ap",
        resources={"gpu": 1.5},
        promotion={"seeds": [1, 1]},
        tracking_uri="mlruns",
    )
    assert sorted(line.partition(":")[0] for line in told) == sorted(
        ["name", "trails", "scenario.order", "data.seed", "search.alpha_cls", "search.lambda_cls", "fixed.lambda_cls",
         "fixed.thr", "training.epochs", "training.batch", "compare", "objective", "resources.gpu", "promotion.seeds",
         "tracking_uri"]
    )  # fmt: skip


def test_a_mistake_in_one_key_hides_no_mistake_in_another() -> None:
    for one, _ in MISTAKES:
        key = next(iter(one))
        other = {"trials": 0} if key != "trials" else {"seed": -1}
        assert any(line.startswith(f"{next(iter(other))}: input") for line in problems_of(**one, **other))
        if "objective" not in one and key != "trails":
            assert any(line.startswith("objective: ") for line in problems_of(**one, objective="ap"))


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", ["must hold keys and values, but holds NoneType"]),
        ("- name: x\n", ["must hold keys and values, but holds list"]),
        ("name: [x\n", ["must be YAML, but while parsing a flow sequence"]),
        ("name: 2024-13-45\n", ["must be YAML, but month must be in 1..12"]),
        ("name: \x07\n", ["must be YAML, but unacceptable character"]),
        ("name: !!python/object/apply:os.getcwd []\n", ["must be YAML, but could not determine a constructor"]),
        (text_of() + "name: again\nseed: 1\nseed: 2\n", ["name: is given twice, in lines ", "seed: is given twice"]),
        (text_of(training=None) + "training: {epochs: 1, epochs: 2}\n", ["epochs: is given twice, in lines "]),
    ],
)
def test_what_is_no_sweep_file(text: str, lines: list[str]) -> None:
    with pytest.raises(SpecError) as raised:
        parse_spec(text, "sweep.yaml")
    assert len(raised.value.problems) == len(lines)
    assert all(told.startswith(line) for told, line in zip(raised.value.problems, lines, strict=True))


def test_a_missing_file_lists_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"cannot be read \(No such file.*demo.yaml, erd_digits.yaml"):
        load_spec(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes("name: Zoë".encode("latin-1"))
    with pytest.raises(SpecError, match="must be a text in UTF-8"):
        load_spec(tmp_path / "latin.yaml")


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
