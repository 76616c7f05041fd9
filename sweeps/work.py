"""From a spec to what a trial is given: its configuration, and where it runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from search_spaces.distributions import Scalar
from sweeps.spec import SweepSpec, preset_values
from trainables.catalog import METHODS
from trainables.config import Runtime, TrialConfig
from trainables.datasets import Splits, prepare
from trainables.errors import DataError


def prepared(spec: SweepSpec) -> Splits:
    """The sweep's data, checked, with every class and every step's images in it.

    Raises:
        DataError: what is wrong with files or scenario.
    """
    from trainables.datasets.annotations import load, require_classes

    splits = prepare(spec.data, spec.storage / "data")
    require_classes(load(splits.train.annotations, splits.train.images), spec.scenario)
    return splits


def base_config(spec: SweepSpec, splits: Splits) -> TrialConfig:
    """The configuration of trial 0: the method's defaults and what the spec fixes.

    Raises:
        DataError: a batch that the method does not allow.
    """
    config = _with(spec, splits, spec.method, spec.all_defaults())
    allowed = config.params.get("images_per_device")
    if allowed and allowed != config.batch_size:
        raise DataError("training.batch_size", [f"`batch_size = {allowed}` must hold for preset {spec.preset!r}, but got {config.batch_size}"])
    return config


def compared(spec: SweepSpec, splits: Splits) -> dict[str, TrialConfig]:
    """The configurations that the spec compares with, by name (`finetune`, `erd_2023`, ...)."""
    configs = {}
    for entry in spec.compare:
        method, _, preset = entry.partition("/")
        values = preset_values(method, preset or METHODS[method].default_preset, spec.detector)
        configs[preset or method] = _with(spec, splits, method, values)
    return configs


def final(spec: SweepSpec, config: TrialConfig, seed: int) -> TrialConfig:
    """`config` on the budget of the final training, under one of its seeds."""
    budget = spec.promotion
    return replace(
        config,
        base_epochs=budget.base_epochs or config.base_epochs,
        epochs=budget.epochs or config.epochs,
        seed=seed,
    )


def _with(spec: SweepSpec, splits: Splits, method: str, values: dict[str, Scalar]) -> TrialConfig:
    def part(prefix: str) -> dict[str, Scalar]:
        return {name.removeprefix(f"{prefix}/"): value for name, value in values.items() if name.startswith(f"{prefix}/")}

    return TrialConfig(
        scenario=spec.scenario,
        data=splits.train.digest,
        detector=spec.detector,
        method=method,
        params=part("method"),
        optim=part("optim"),
        base_epochs=spec.base_epochs,
        epochs=spec.epochs,
        batch_size=spec.batch_size,
        seed=spec.seed,
        base_seed=spec.seed,
        pretrained=spec.pretrained,
        device="cuda" if spec.resources.gpu else "cpu",
    )


def runtime(spec: SweepSpec, splits: Splits, evaluate_on: str = "tune", report_at: tuple[int, ...] = ()) -> Runtime:
    """Where the sweep's trials run. On a GPU the CPUs of a trial load images; without one they train."""
    on_gpu = bool(spec.resources.gpu)
    return Runtime(
        splits=splits,
        store=store_folder(spec),
        evaluate_on=evaluate_on,
        report_at=report_at,
        threads=1 if on_gpu else spec.resources.cpu,
        workers=spec.resources.cpu if on_gpu else 0,
    )


def store_folder(spec: SweepSpec) -> Path:
    """The results that all sweeps on this storage share."""
    return spec.storage / "store"
