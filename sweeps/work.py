"""From a spec to what a trial is given: its configuration, and where it runs."""

from __future__ import annotations

from dataclasses import replace

from search_spaces.distributions import Choice, Distribution, Scalar
from search_spaces.params import OPTIM, Param, params_of
from search_spaces.params import floor as loosest_values
from sweeps.spec import SweepSpec, preset_values
from sweeps.spec_file import Teacher
from sweeps.spec_parameters import classes
from sweeps.spec_teacher import ALONE, COMPRESSING
from trainables.catalog import METHODS
from trainables.config import Runtime, TrialConfig
from trainables.datasets import Splits, prepare
from trainables.scenarios import Scenario

STUDENT_ALONE = "student alone"
"""What people call fine-tuning in a scenario of one step."""


def prepared(spec: SweepSpec) -> Splits:
    """The sweep's data, checked, with every class and every step's images in it.

    Raises:
        DataError: what is wrong with files or scenario.
    """
    from trainables.datasets.annotations import read, require_classes

    splits = prepare(spec.data, spec.storage / "data")
    for split in (splits.train, splits.tune, splits.test):
        for scenario in (*spec.scenarios, *spec.report_scenarios):
            require_classes(read(split.annotations), scenario)
    return splits


def base_config(spec: SweepSpec, splits: Splits) -> TrialConfig:
    """The configuration of trial 0: the first method's preset and what the spec fixes."""
    return base_configs(spec, splits)[spec.method]


def base_configs(spec: SweepSpec, splits: Splits) -> dict[str, TrialConfig]:
    """Of each method its preset and what the spec fixes."""
    return {method: configured(spec, splits, method, spec.all_defaults(method)) for method in spec.methods}


def compared(spec: SweepSpec, splits: Splits) -> dict[str, TrialConfig]:
    """The configurations that the spec compares with, by name (`finetune`, `erd_2023`, ...)."""
    configs = {}
    for entry in spec.compare:
        method, _, given = entry.partition("/")
        preset = given or METHODS[method].default_preset
        values = preset_values(method, preset, spec.detector)
        name = STUDENT_ALONE if spec.teachers and method == ALONE else chain_name(method, preset)
        configs[name] = configured(spec, splits, method, values)
    return configs


def chain_name(method: str, preset: str) -> str:
    """What people call a method under a preset: `finetune`, `erd_2023`, `erd fixed`."""
    if preset == "default":
        return method
    return preset if preset.startswith(method) else f"{method} {preset}"


def base_name(spec: SweepSpec, method: str) -> str:
    """What people call a method's base configuration: as its preset, unless the file fixes other values."""
    preset = spec.methods[method]
    own = spec.all_defaults(method) != preset_values(method, preset, spec.detector)
    return f"{chain_name(method, preset)} with own values" if own else chain_name(method, preset)


def final(spec: SweepSpec, config: TrialConfig, seed: int, scenario: Scenario) -> TrialConfig:
    """`config` on a scenario and the budget of the final training, under one of its seeds."""
    budget = spec.promotion
    longer = (budget.epochs or config.epochs) / config.epochs
    return replace(
        config,
        schedule=tuple(replace(one, until=round(one.until * longer)) for one in config.schedule),
        scenario=scenario,
        base_epochs=budget.base_epochs or config.base_epochs,
        epochs=budget.epochs or config.epochs,
        seed=seed,
    )


def configured(spec: SweepSpec, splits: Splits, method: str, values: dict[str, Scalar]) -> TrialConfig:
    """A trial's configuration from flat parameters of `method` and of the optimisation."""
    parts = classes([method], spec.detector)

    def part(owner: str) -> dict[str, Scalar]:
        return {name: param.typed(values[f"{owner}/{name}"]) for name, param in params_of(parts[owner]).items()}

    return TrialConfig(
        scenario=spec.scenario,
        data=splits.train.digest,
        detector=spec.detector,
        method=method,
        params=part(method),
        optim=part(OPTIM),
        base_epochs=spec.base_epochs,
        epochs=spec.epochs,
        batch_size=spec.batch_size,
        seed=spec.seed,
        base_seed=spec.seed,
        pretrained=spec.pretrained,
        freeze_base=spec.freeze_base,
        ema_momentum=spec.ema_momentum,
        nms=spec.nms,
        threads=1 if spec.resources.gpu else spec.resources.cpu,
        device="cuda" if spec.resources.gpu else "cpu",
        devices=spec.devices,
        response_dtype=spec.tables.responses,
        teacher=_teacher(spec, splits) if spec.teachers and METHODS[method].taught else None,
    )


def teachers(spec: SweepSpec, splits: Splits) -> dict[str, TrialConfig]:
    """By name, in their order, what teaches the student of a scenario of one step."""
    found: dict[str, TrialConfig] = {}
    before: TrialConfig | None = None
    for one in spec.teachers:
        before = _taught(spec, splits, one, before)
        name = f"teacher {one.detector}" if len(spec.teachers) == 1 else f"teacher {len(found) + 1} {one.detector}"
        found[name] = before
    return found


def _taught(spec: SweepSpec, splits: Splits, one: Teacher, before: TrialConfig | None) -> TrialConfig:
    method = COMPRESSING if before else ALONE
    preset = spec.methods.get(method, METHODS[method].default_preset)
    own_parameters = {name: value for name, value in spec.constants.items() if name.startswith(f"{method}/")}
    values = preset_values(method, preset, one.detector) | own_parameters
    own = replace(spec, detector=one.detector, pretrained=one.pretrained, freeze_base=False, teachers=())
    config = configured(own, splits, method, values)
    if before is None:
        config = config.joint(0)
    return replace(config, teacher=before, checkpoint=one.checkpoint)


def _teacher(spec: SweepSpec, splits: Splits) -> TrialConfig:
    return list(teachers(spec, splits).values())[-1]


def runtime(spec: SweepSpec, splits: Splits, evaluate_on: str = "tune", report_at: tuple[int, ...] = ()) -> Runtime:
    """Where the sweep's trials run. On GPUs the CPUs of a trial load images; without one they train."""
    on_gpu = bool(spec.resources.gpu)
    return Runtime(
        splits=splits,
        store=spec.store,
        evaluate_on=evaluate_on,
        report_at=report_at,
        workers=spec.resources.cpu // spec.devices if on_gpu else 0,
        floors={method: floor for method in spec.methods if (floor := response_floor(spec, method)) is not None},
        table_budget_gb=spec.tables.budget_gb,
    )


def response_floor(spec: SweepSpec, method: str) -> dict[str, Scalar] | None:
    """The loosest values of the parameters that decide what a method's trials ask of a teacher; see `Runtime.floors`.

    None where no parameter decides it, empty where no table can serve all trials.
    """
    cls, fixed = METHODS[method].params, spec.all_defaults(method)
    ranges = {
        name: _ends(param, spec.space.get(f"{method}/{name}"), fixed[f"{method}/{name}"])
        for name, param in params_of(cls).items()
    }
    try:
        return loosest_values(cls, ranges) or None
    except ValueError:
        return {}


def _ends(param: Param, searched: Distribution | None, default: Scalar) -> tuple[Scalar, ...]:
    if isinstance(searched, Choice):
        return (*searched.values, default)
    return (param.typed(searched.low), param.typed(searched.high), default) if searched else (default,)
