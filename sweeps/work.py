"""From a spec to what a trial is given: its configuration, and where it runs."""

from __future__ import annotations

from dataclasses import replace

from search_spaces.distributions import Choice, Distribution, Scalar
from search_spaces.params import floor, params_of
from sweeps.spec import SweepSpec, preset_values
from trainables.catalog import DETECTORS, METHODS
from trainables.config import Runtime, TrialConfig
from trainables.datasets import Splits, prepare


def prepared(spec: SweepSpec) -> Splits:
    """The sweep's data, checked, with every class and every step's images in it.

    Raises:
        DataError: what is wrong with files or scenario.
    """
    from trainables.datasets.annotations import read, require_classes

    splits = prepare(spec.data, spec.storage / "data")
    for split in (splits.train, splits.tune, splits.test):
        require_classes(read(split.annotations), spec.scenario)
    return splits


def base_config(spec: SweepSpec, splits: Splits) -> TrialConfig:
    """The configuration of trial 0: the method's defaults and what the spec fixes."""
    return configured(spec, splits, spec.method, spec.all_defaults())


def compared(spec: SweepSpec, splits: Splits) -> dict[str, TrialConfig]:
    """The configurations that the spec compares with, by name (`finetune`, `erd_2023`, ...)."""
    configs = {}
    for entry in spec.compare:
        method, _, given = entry.partition("/")
        preset = given or METHODS[method].default_preset
        values = preset_values(method, preset, spec.detector)
        configs[chain_name(method, preset)] = configured(spec, splits, method, values)
    return configs


def chain_name(method: str, preset: str) -> str:
    """What people call a method under a preset: `finetune`, `erd_2023`, `erd fixed`."""
    if preset == "default":
        return method
    return preset if preset.startswith(method) else f"{method} {preset}"


def final(spec: SweepSpec, config: TrialConfig, seed: int) -> TrialConfig:
    """`config` on the budget of the final training, under one of its seeds."""
    budget = spec.promotion
    return replace(
        config,
        base_epochs=budget.base_epochs or config.base_epochs,
        epochs=budget.epochs or config.epochs,
        seed=seed,
    )


def configured(spec: SweepSpec, splits: Splits, method: str, values: dict[str, Scalar]) -> TrialConfig:
    """A trial's configuration from flat parameters of `method` and of the optimisation."""

    def part(prefix: str, cls: type) -> dict[str, Scalar]:
        # 1 and 1.0 are the same value and must be the same configuration.
        return {name: type(param.default)(values[f"{prefix}/{name}"]) for name, param in params_of(cls).items()}

    return TrialConfig(
        scenario=spec.scenario,
        data=splits.train.digest,
        detector=spec.detector,
        method=method,
        params=part("method", METHODS[method].params),
        optim=part("optim", DETECTORS[spec.detector].optim),
        base_epochs=spec.base_epochs,
        epochs=spec.epochs,
        batch_size=spec.batch_size,
        seed=spec.seed,
        base_seed=spec.seed,
        pretrained=spec.pretrained,
        ema_momentum=spec.ema_momentum,
        device="cuda" if spec.resources.gpu else "cpu",
        response_dtype=spec.tables.responses,
    )


def runtime(spec: SweepSpec, splits: Splits, evaluate_on: str = "tune", report_at: tuple[int, ...] = ()) -> Runtime:
    """Where the sweep's trials run. On a GPU the CPUs of a trial load images; without one they train."""
    on_gpu = bool(spec.resources.gpu)
    return Runtime(
        splits=splits,
        store=spec.store,
        evaluate_on=evaluate_on,
        report_at=report_at,
        threads=1 if on_gpu else spec.resources.cpu,
        workers=spec.resources.cpu if on_gpu else 0,
        floor=response_floor(spec),
        table_budget_gb=spec.tables.budget_gb,
    )


def response_floor(spec: SweepSpec) -> dict[str, Scalar] | None:
    """The loosest values of the parameters that decide what a trial of the sweep asks of a teacher; see `Runtime`.

    None where no parameter decides it, empty where no table can serve all trials.
    """
    cls, fixed = METHODS[spec.method].params, spec.all_defaults()
    ranges = {name: _ends(spec.space.get(f"method/{name}"), fixed[f"method/{name}"]) for name in params_of(cls)}
    try:
        return floor(cls, ranges) or None
    except ValueError:
        return {}


def _ends(searched: Distribution | None, default: Scalar) -> tuple[Scalar, ...]:
    if isinstance(searched, Choice):
        return (*searched.values, default)
    kind = type(default)  # 1 and 1.0 are the same value and must be the same floor
    return (kind(searched.low), kind(searched.high), default) if searched else (default,)
