"""What a sweep file may hold: its keys, what they mean and their types. Mistakes become lines that name the key."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError

JOINT = "joint"
ANY = "*"  # the method of a preset that names none
# The two forms of a key that takes a name or something written out. Pydantic puts their tags into an error's place.
NAME, WRITTEN_OUT = "<name>", "<written out>"
TWO_FORMS = Discriminator(lambda value: NAME if isinstance(value, str) else WRITTEN_OUT)
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what numpy takes


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Groups(_Section):
    """A scenario that has no name: its classes in groups, or a named one in another class order.

    Attributes:
        steps: the class names that each step introduces, in label order.
        name: with `steps`: what to call it.
        named: in place of `steps`: a named scenario, such as `coco/40+40`.
        order: with `named`: `coco_id` (the data set's own), `alphabetical`, `shuffle:<seed>`, or every class in order.
    """

    steps: list[list[str]] | None = None
    name: str = "custom"
    named: str | None = None
    order: Annotated[Annotated[str, Tag(NAME)] | Annotated[list[str], Tag(WRITTEN_OUT)], TWO_FORMS] = "coco_id"


class Data(_Section):
    """The images. Every path that is not absolute starts at the folder in which `sweeps` is called.

    Attributes:
        kind: `digits`, `coco`, `voc` or `custom`; by default that of the named scenario.
        root: coco, voc: the folder of the official layout. custom: what the paths below are relative to. digits: where
            to keep the scenes, by default in the storage.
        sizes: digits: number of train, tune and test scenes.
        seed: of the digit scenes, and of the part of train that becomes tune.
        num_tune: coco, voc, custom: number of tune images; by default 5000 of COCO, else a tenth of train.
        train_annotations: custom: a COCO-format file; likewise `test` and, if it is not to be a part of train, `tune`.
        train_images: custom: the folder that its file names are relative to; likewise `test` and `tune`.
    """

    kind: str | None = None
    root: str | None = None
    sizes: list[int] | None = None
    seed: int | None = None
    num_tune: int | None = None
    train_annotations: str | None = None
    train_images: str | None = None
    tune_annotations: str | None = None
    tune_images: str | None = None
    test_annotations: str | None = None
    test_images: str | None = None


class Training(_Section):
    """Budgets; what is left out comes from the detector's recipe.

    Attributes:
        base_epochs: of the first step and of the joint references; of a first teacher.
        epochs: of each later step; of a scenario's only step, by default as many as `base_epochs`.
        batch_size: images a device.
        pretrained: file or URL of backbone weights to start from; random weights without it.
        freeze_base: the backbone keeps those weights in the first step, and in the joint references; what of it is
            frozen later is a method's own affair.
        ema_momentum: of a moving average of the weights, which is then what counts; 0 for none.
    """

    base_epochs: int | None = Field(None, ge=1)
    epochs: int | None = Field(None, ge=1)
    batch_size: int | None = Field(None, ge=1)
    pretrained: str | None = None
    freeze_base: bool = False
    ema_momentum: float = Field(0.0, ge=0, lt=1)


class Nms(_Section):
    """Which detections of one object stay.

    Attributes:
        type: `nms`: the best one; `voting_cluster_diounms`: the best one, where its whole cluster puts it
            (`trainables.detectors.voting_nms`).
        iou_threshold: by default the recipe's.
        beta, gate, sigma: of voting: the exponent of the distance of centres, the nearness from which on a box votes,
            and how fast a vote fades.
    """

    type: Literal["nms", "voting_cluster_diounms"] = "nms"
    iou_threshold: float | None = Field(None, gt=0, lt=1)
    beta: float | None = Field(None, gt=0)
    gate: float | None = Field(None, ge=0, le=1)
    sigma: float | None = Field(None, gt=0)


class TestCfg(_Section):
    """How a detector is tested; as in mmdet's `test_cfg`.

    Attributes:
        nms: of the detections that are scored. Training does not depend on it.
    """

    nms: Nms = Nms()


class Teacher(_Section):
    """A detector that teaches, in a scenario of one step, the next one or at last the trials' student.

    Attributes:
        detector: one of the catalogue, with the pyramid and the head of the student's.
        checkpoint: a file that `sweeps export` wrote, with the scenario's classes.
        train: in its place: train it once, the first of several alone, as a base step, each next one with `ld` from the
            one before, by the sweep's preset and what it fixes.
        pretrained: of one that is trained: as in `training`.
    """

    detector: str
    checkpoint: str | None = None
    train: bool = False
    pretrained: str | None = None


class Aimed(_Section):
    """One metric that a sweep aims at.

    Attributes:
        metric: see `trainables.objectives.DIRECTION_OF`.
        over: `last`: at the end of the chain; `mean` or `sum` over its increments; or a weight for each increment. By
            default seconds are summed, of all else the last counts.
    """

    metric: str
    over: Annotated[
        Annotated[Literal["", "last", "mean", "sum"], Tag(NAME)] | Annotated[list[float], Tag(WRITTEN_OUT)], TWO_FORMS
    ] = ""


def _listed(given: Any) -> Any:
    return given if isinstance(given, list) else [given]


def _preset_of_any(given: Any) -> Any:
    return {ANY: given} if isinstance(given, str) else given or {}


def _aimed(given: Any) -> Any:
    """A metric's name stands for the metric at the end of the chain, and one objective for a list of one."""
    return [{"metric": one} if isinstance(one, str) else one for one in _listed(given)]


class Scheduler(_Section):
    """When a trial is stopped early. Its clock counts the epochs of all incremental steps.

    Attributes:
        name: `asha` compares trials at its rungs and stops the worse ones; `hyperband` does so in brackets that begin
            at later rungs; `median` stops a trial that is below the median of the others at the same epoch; `pbt`
            (population-based training) stops none: every `interval` the worst go on from the best, with loss weights
            and learning rate a little changed; `none` lets every trial end, whatever else is given. By
            default `asha`, with several objectives `none`.
        grace: the first rung; by default the end of the first increment.
        reduction_factor: asha, hyperband: of the trials at a rung, one in so many goes on; each rung is so many times
            the one before.
        brackets: hyperband: how many.
        interval: pbt: epochs.
    """

    name: Literal["asha", "hyperband", "median", "pbt", "none"] | None = None
    grace: int | None = Field(None, ge=1)
    reduction_factor: int = Field(3, ge=2)
    brackets: int = Field(3, ge=2)
    interval: int = Field(1, ge=1)


class Budget(_Section):
    """What ends a search before its last trial; trials under way come to their end.

    Attributes:
        hours: of wall time since this driver's search began.
        core_hours: of all trials together; gpu_hours: likewise.
        patience: trials in a row that end without a better objective.
        steps: `first`: trials learn the first increment alone, for far less; the leaders under several `seeds`, and
            what is promoted, learn the whole chain (arXiv 2404.06466: nearly as good).
    """

    hours: float | None = Field(None, gt=0)
    core_hours: float | None = Field(None, gt=0)
    gpu_hours: float | None = Field(None, gt=0)
    patience: int | None = Field(None, ge=1)
    steps: Literal["first", "all"] = "all"


class Resources(_Section):
    """What one trial takes.

    Attributes:
        cpu: cores; by default one a device.
        gpu: 0 trains on the CPU; a fraction, such as 0.5, lets trials share a GPU; several, all of one node, train a
            trial together, each on `batch_size` images an iteration.
    """

    gpu: float = Field(0, ge=0)
    cpu: int = Field(default_factory=lambda given: max(int(given.get("gpu", 0)), 1), ge=1)

    @property
    def devices(self) -> int:
        """How many train together."""
        return max(int(self.gpu), 1)

    @property
    def of_process(self) -> dict[str, float]:
        """What Ray is to keep for a trial's own process; each of several devices has one with a share of its own.

        Tune wants something of every trial: where devices have their own, a byte of memory.
        """
        return {"CPU": self.cpu, "GPU": self.gpu} if self.devices == 1 else {"CPU": 0, "GPU": 0, "memory": 1}


class Tables(_Section):
    """What is computed once, kept as tables on disk and mapped into memory by all trials of a host.

    Attributes:
        budget_gb: of the largest table of images, targets or teacher responses. What would be larger is loaded,
            assigned or asked live, and the sweep says so; 0 keeps none.
        responses: `float32`: a trial gets to the bit what a live teacher would tell it; `float16`: half the size, and
            the teacher's logits are rounded.
    """

    budget_gb: float = Field(8, ge=0)
    responses: Literal["float32", "float16"] = "float32"


class Promotion(_Section):
    """The final training of the best configuration.

    Attributes:
        seeds: one training each.
        base_epochs: as in `training`, where it differs from the search's.
        epochs: likewise.
    """

    seeds: list[Seed] = Field([0, 1, 2], min_length=1)
    base_epochs: int | None = Field(None, ge=1)
    epochs: int | None = Field(None, ge=1)


NamedScenario = Annotated[Annotated[str, Tag(NAME)] | Annotated[Groups, Tag(WRITTEN_OUT)], TWO_FORMS]


class SweepFile(_Section):
    """The keys of a sweep file.

    Attributes:
        name: of the sweep, of its folder in the storage and of its MLflow experiment.
        scenario: which classes are learnt when: a name, such as `digits/5+5`, or written out.
        scenarios: in its place, several: each gets a sweep of its own, `NAME.digits-5-5`, all side by side on one
            cluster.
        pooled: with `scenarios`: one sweep, in which a configuration must do well on all of them: by their `mean`, by
            the `worst`, or by its mean `rank` among the trials. A trial runs them one after another, shortest first.
        data: the images; only for a scenario of digits it can be left out.
        detector: one of the catalogue.
        method: one of the catalogue, such as `erd` or `replay-sid`, or a list: then the method is itself searched.
        teacher: of a scenario of one step, such as `digits/10`, that `ld` compresses a larger detector in; several are
            a chain, each an assistant of the one before (Self-LD: the student's own detector).
        each_method: with several methods: each gets as many trials as the others, proposed from its own alone, and
            promotion trains the best of each, to compare methods that were tuned alike. `trials` is of all together.
        preset: of the method: the values of everything that is neither searched nor fixed, and trial 0; with several
            methods, one for each by its name, and the first trials are these.
        search: what varies: by parameter, `declared` (the range of `search_spaces`), a range `[low, high]` or
            `{low, high, step}`, a list of choices, or for numbers `{values: [...]}`. `erd/T` is meant for one of
            several methods.
        fixed: parameters with one value other than the preset's.
        training: budgets.
        test_cfg: how detectors are tested, where it is not as their recipe has it.
        trials: how many configurations to try, by default 16, of a grid all; trial 0 is the preset.
        max_concurrent: trials at once at most; by default as many as the cluster holds.
        objective: the metric that a trial is judged by, on the tune split, at the end of the chain or `{metric, over}`;
            a list of several asks for the trials that no other one beats in all of them.
        constraints: what a configuration must hold at its end, such as `forgetting <= 0.05`.
        sampler: how configurations are proposed: Optuna's `tpe`, `gp`, `cmaes`, `nsga2`, `nsga3`, `qmc` or `random`, or
            `grid`, every combination of the values searched.
        scheduler: early stopping.
        budget: what else ends the search.
        seed: of the search and of every trial's training.
        seeds: with more than one, the leaders of the search run under so many, `seed` and those after it, to tell a
            lead from luck.
        report_on: the scenario of the final training, or a list; by default that searched on. To tune and report on
            the same scenario flatters a method (arXiv 2403.09066).
        warm_start: earlier sweeps of the same storage, whose trials the search begins with.
        compare: what to train beside the search: `joint`, the reference that learns all classes of a step at once (gaps
            and omega need it; a scenario of one step has none), and chains: a method, or `method/preset`.
        resources: of one trial.
        tables: what is computed once for all trials.
        promotion: the final training.
        storage: the folder of sweeps and data, which all nodes must share; by default
            `PALIMPSEST_STORAGE`, else `runs`.
        store: where sweeps share what is built once (base steps, references, scores, tables): a folder, or a URL that
            fsspec knows, such as `s3://bucket/store`; by default `store` in the storage.
        study: database for Optuna's dashboard, such as `postgresql+psycopg://user@host/optuna`; by default
            `study.db` in the sweep's folder. A password belongs into `PGPASSWORD` or `~/.pgpass`, not into a file.
        tracking_uri: MLflow's database or server; by default `MLFLOW_TRACKING_URI`, else `sqlite:///mlflow.db`.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")
    scenario: NamedScenario = ""
    scenarios: list[NamedScenario] = []
    pooled: Literal["", "mean", "worst", "rank"] = ""
    data: Data | None = None
    detector: str
    method: Annotated[list[str], BeforeValidator(_listed), Field(min_length=1)]
    teacher: Annotated[list[Teacher], BeforeValidator(_listed)] = []
    each_method: bool = False
    preset: Annotated[dict[str, str], BeforeValidator(_preset_of_any)] = {}
    search: dict[str, Any]
    fixed: dict[str, Any] = {}
    training: Training = Training()
    test_cfg: TestCfg = TestCfg()
    trials: int | None = Field(None, ge=1)
    max_concurrent: int | None = Field(None, ge=1)
    objective: Annotated[list[Aimed], BeforeValidator(_aimed), Field(min_length=1)] = [Aimed(metric="ap_all")]
    constraints: list[str] = []
    sampler: str = "tpe"
    scheduler: Scheduler = Scheduler()
    budget: Budget = Budget()
    seed: Seed = 0
    seeds: int = Field(1, ge=1, le=100)
    report_on: Annotated[list[NamedScenario], BeforeValidator(_listed)] = []
    warm_start: list[str] = []
    compare: list[str] = ["joint", "finetune"]
    resources: Resources = Resources()
    tables: Tables = Tables()
    promotion: Promotion = Promotion()
    storage: str | None = None
    store: str | None = None
    study: str | None = None
    tracking_uri: str | None = None


SECTIONS: dict[str, type[BaseModel]] = {
    "scenario": Groups,
    "scenarios": Groups,
    "report_on": Groups,
    "data": Data,
    "training": Training,
    "test_cfg": TestCfg,
    "test_cfg.nms": Nms,
    "teacher": Teacher,
    "objective": Aimed,
    "scheduler": Scheduler,
    "budget": Budget,
    "resources": Resources,
    "tables": Tables,
    "promotion": Promotion,
}
STAND_INS = {"name": "x", "detector": "x", "method": "x", "search": {}}


def typed_values(content: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values of a sweep file by key, defaults included, without the keys at fault; and a line for each fault."""
    try:
        return dict(SweepFile.model_validate(content)), []
    except ValidationError as error:
        faults = [one for one in error.errors() if one["type"] != "default_factory_not_called"]
    wrong = {str(fault["loc"][0]) for fault in faults}
    rest = {key: value for key, value in content.items() if key in SweepFile.model_fields and key not in wrong}
    values = dict(SweepFile.model_validate({**STAND_INS, **rest}))
    return {key: value for key, value in values.items() if key not in wrong}, [_line(fault) for fault in faults]


def _line(fault: Any) -> str:
    parts = [str(part) for part in fault["loc"] if part not in (NAME, WRITTEN_OUT)]
    where, given = ".".join(parts), fault["input"]
    if fault["type"] == "extra_forbidden":
        section = SECTIONS.get(".".join(part for part in parts[:-1] if not part.isdigit()), SweepFile)
        return f"{where}: unknown key; {choices(parts[-1], section.model_fields)}"
    if fault["type"] == "missing":
        return f"{where}: is missing"
    if fault["type"] in ("model_type", "dict_type"):
        return f"{where}: must hold keys and values, but got {given!r}"
    if fault["type"] == "string_type" and isinstance(given, int | float):
        return f"{where}: must be a text, but got {given!r}; put it in quotes"
    return f"{where}: {fault['msg'][0].lower()}{fault['msg'][1:]}, but got {given!r}"


def choices(given: str, available: Collection[str]) -> str:
    """The end of a line on something unknown: what may have been meant, and what there is."""
    meant = difflib.get_close_matches(given, available, n=1)
    question = f"did you mean {meant[0]!r}? " if meant else ""
    return f"{question}available: {', '.join(available)}"
