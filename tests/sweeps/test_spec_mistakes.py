"""Mistakes in a sweep file: all of them at once, each a line that names its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeps.spec import load_spec, load_specs, parse_spec
from tests.sweeps.sweep_files import problems_of, text_of, the_problem
from trainables.errors import SpecError

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")

TRAINED = {"detector": "gfl_r34_small", "train": True}
TAUGHT = {"scenario": "digits/10", "method": "ld", "search": {"w_kd": "declared"}, "teacher": TRAINED}
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
    ({"compare": ["erd/erd_2022"]}, "compare: `batch_size = 2` must hold for 'erd/erd_2022', but got 16"),
    ({"compare": ["finetun"]}, "compare: 'finetun' is unknown; did you mean 'finetune'? available: "),
    ({"objective": "ap_al"}, "objective: 'ap_al' is unknown; did you mean 'ap_all'? available: "),
    ({"objective": []}, "objective: value should have at least 1 item"),
    ({"objective": ["ap_all", "ap_al"]}, "objective: 'ap_al' is unknown; did you mean 'ap_all'? available: "),
    ({"objective": ["ap_all", "ap_all"]}, "objective: must all differ, but got ap_all, ap_all"),
    ({"test_cfg": {"nms": {"typ": "nms"}}}, "test_cfg.nms.typ: unknown key; did you mean 'type'? "),
    ({"report_on": [{"named": "digits/5+5", "oder": "x"}]}, "report_on.0.oder: unknown key; did you mean 'order'? "),
    (
        {"scenario": None, "scenarios": [{"named": "digits/5+5", "oder": "x"}], "pooled": "mean"},
        "scenarios.0.oder: unknown key; did you mean 'order'? ",
    ),
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
    ({"scheduler": {"name": "pbt"}, "budget": {"patience": 3}}, "budget.patience: acts only with another scheduler"),
    ({"scheduler": {"name": "pbt"}, "resources": {"cpu": 2, "gpu": 2}}, "resources.gpu: pbt trains on one device"),
    ({"budget": {"gpu_hours": 1.0}}, "budget.gpu_hours: acts only where `resources.gpu` is above 0"),
    ({"budget": {"patience": 3}, "objective": ["ap_new", "forgetting"]}, "budget.patience: acts only with one obj"),
    ({"budget": {"steps": "two"}}, "budget.steps: input should be 'first' or 'all', but got 'two'"),
    ({"seeds": 3, "objective": ["ap_new", "forgetting"]}, "seeds: leaders are ranked by one objective, but there are"),
    ({"test_cfg": {"nms": {"type": "soft_nms"}}}, "test_cfg.nms.type: input should be 'nms' or 'voting_cluster_diounm"),
    ({"test_cfg": {"nms": {"gate": 0.5}}}, "test_cfg.nms.gate: acts only with type: voting_cluster_diounms"),
    ({"report_on": "digits/5+6"}, "report_on: 'digits/5+6' is unknown; available: "),
    ({"scenario": "digits/10"}, "scenario: needs at least two steps, or a `teacher`, but digits/10 has one"),
    ({"each_method": True}, "each_method: acts only with several methods, but there is erd"),
    (
        {"each_method": True, "method": ["erd", "lwf"], "scheduler": {"name": "asha"}},
        "scheduler.name: asha would stop methods for each other; with each_method it must be `none`",
    ),
    ({**TAUGHT, "scenario": "digits/5+5"}, "teacher: acts only in a scenario of one step, but digits/5+5 has 2"),
    ({**TAUGHT, "method": ["ld", "sid"]}, "method: with a teacher it must be ld, but got sid"),
    ({**TAUGHT, "compare": ["sid"]}, "compare: with a teacher, must be finetune (the student alone) or ld, but got"),
    ({**TAUGHT, "report_on": "digits/5+5"}, "report_on: must go: with a teacher, the result is on its classes"),
    ({**TAUGHT, "teacher": {"detector": "gfl_r34_small"}}, "teacher: either `checkpoint` or `train: true` must be "),
    (
        {**TAUGHT, "teacher": {"detector": "gfl_r34", "train": True}},
        "teacher.detector: must have the pyramid and head of 'gfl_r18_tiny', but got 'gfl_r34'; available: gfl_r18_t",
    ),
    (
        {**TAUGHT, "teacher": {"detector": "gfl_r34_small", "checkpoint": "no.pth"}},
        "teacher.checkpoint: there is no file ",
    ),
    (
        {**TAUGHT, "teacher": [TRAINED, {"detector": "gfl_r18_small", "checkpoint": __file__}]},
        "teacher.1.checkpoint: needs no teacher before it; of several only the first may have one",
    ),
    ({**TAUGHT, "teacher": {"detektor": "x", **TRAINED}}, "teacher.0.detektor: unknown key; did you mean 'detector'? "),
    ({"report_on": "digits/10"}, "report_on: needs at least two steps, but digits/10 has 1"),
    ({"report_on": "coco/40+40"}, "report_on: must have the data's classes, but airplane, "),
    ({"study": "mysql://me@host/optuna"}, "study: must be `sqlite:///<file>` or `postgresql+psycopg://"),
    (
        {"study": "postgresql://me:secret@host/optuna"},
        "study: postgresql://me:***@host/optuna: must hold no password, since sweep files are recorded; put it into ",
    ),
    ({"tracking_uri": "http://me:se/c@ret@host"}, "tracking_uri: http://me:***@host: must hold no password, since "),
    ({"store": "ftp://host/?password=secret&user=me"}, "store: ftp://host/?password=***&user=me: must hold no "),
    ({"scheduler": {"grace": 5}}, "scheduler.grace: `grace < 5` (epochs of all incremental steps) must hold, "),
    ({"scheduler": {"brackets": 2}}, "scheduler.brackets: acts only with hyperband, but the scheduler is asha"),
    (
        {"scheduler": {"name": "median", "reduction_factor": 2}},
        "scheduler.reduction_factor: acts only with asha or hyperband, but the scheduler is median",
    ),
    ({"scheduler": {"name": "pbt", "grace": 1}}, "scheduler.grace: acts only with asha or hyperband or median, "),
    ({"resources": {"gpu": 1.5}}, "resources.gpu: must be a whole number above 1, but got 1.5"),
    ({"resources": {"cpu": 6, "gpu": 4}}, "resources.cpu: must be a multiple of the 4 devices, "),
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


LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 6))


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", ["must hold keys and values, but holds NoneType"]),
        ("- name: x\n", ["must hold keys and values, but holds list"]),
        ("name: [x\n", ["must be YAML, but while parsing a flow sequence"]),
        ("name: 2024-13-45\n", ["must be YAML, but month must be in 1..12"]),
        ("name: \x07\n", ["must be YAML, but unacceptable character"]),
        ("name: !!python/object/apply:os.getcwd []\n", ["must be YAML, but could not determine a constructor"]),
        (LAUGHS, ["must be YAML, but it holds 234574 keys and values, more than 20000"]),
        ("name: &a [x, *a]\n", ["must be YAML, but what begins in line 1 holds itself"]),
        ("name: [" + "[" * 5000, ["must be YAML, but maximum recursion depth exceeded"]),
        (f"seed: 1{'0' * 99}\n", ["must be YAML, but the number in line 1 has more than 64 bits"]),
        (text_of() + "name: again\nseed: 1\nseed: 2\n", ["name: is given twice, in lines ", "seed: is given twice"]),
        (text_of(training=None) + "training: {epochs: 1, epochs: 2}\n", ["epochs: is given twice, in lines "]),
    ],
)
def test_what_is_no_sweep_file(text: str, lines: list[str]) -> None:
    with pytest.raises(SpecError) as raised:
        parse_spec(text, "sweep.yaml")
    assert len(raised.value.problems) == len(lines)
    assert all(told.startswith(line) for told, line in zip(raised.value.problems, lines, strict=True))


def test_a_large_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(SpecError, match=r"large\.yaml: must have at most 1048576 bytes, but has 1048577"):
        load_spec(path)


def test_a_grid_without_end_is_refused() -> None:
    line = the_problem(search={"alpha_cls": {"low": 1.0, "high": 3.0, "step": 1e-300}}, sampler="grid")
    assert line.startswith("search: a grid must have at most 100000 points, but has 2e+300")


def test_a_password_is_shown_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text_of(trails=1) + "# mlflow: http://me:secret@host\n")
    with pytest.raises(SpecError) as raised:
        load_spec(path)
    assert [problem.split(":")[0] for problem in raised.value.problems] == ["trails", "# mlflow"]
    assert "secret" not in f"{raised.value!r} {raised.value}"


def test_a_missing_file_lists_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"cannot be read \(No such file.*demo.yaml, erd_digits.yaml"):
        load_spec(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes("name: Zoë".encode("latin-1"))
    with pytest.raises(SpecError, match="must be a text in UTF-8"):
        load_spec(tmp_path / "latin.yaml")


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
