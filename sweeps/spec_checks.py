"""What types cannot tell of a sweep file. Each check runs where the values that it needs are right in themselves."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from sweeps.connection import address_problem, tracking_uri
from sweeps.spec_file import JOINT, Data, Groups, choices
from sweeps.spec_parameters import parameter_problems
from trainables.catalog import DETECTORS, METHODS, misfit
from trainables.datasets import KINDS, DataConfig, missing
from trainables.errors import DataError
from trainables.metrics import DIRECTIONS
from trainables.scenarios import CLASS_NAMES, Scenario, custom_scenario, named_scenario


def scenario_of(given: str | Groups) -> Scenario:
    """The scenario that a sweep file names or writes out.

    Raises:
        DataError: what is wrong with it.
    """
    if isinstance(given, str):
        return named_scenario(given)
    if (given.steps is None) == (given.named is None):
        raise DataError("scenario", ["either `steps` or `named` must be given"])
    if given.steps is None:
        return named_scenario(given.named or "", given.order)
    return custom_scenario(given.steps, given.name)


def data_of(given: Data | None, scenario: str | Groups) -> DataConfig:
    """The data that a sweep file asks for, every path absolute.

    Raises:
        DataError: what is wrong with it.
    """
    options = {name: value for name, value in dict(given or Data()).items() if value is not None}
    if "sizes" in options:
        options["sizes"] = tuple(options["sizes"])
    name = scenario if isinstance(scenario, str) else scenario.named
    if name:
        options.setdefault("kind", name.partition("/")[0])
    if "kind" not in options:
        raise DataError(
            "data", [f"kind: is missing, and follows only from a named scenario; available: {', '.join(KINDS)}"]
        )
    config = DataConfig(**options)
    return config if config.kind == "digits" and not config.root else replace(config, root=absolute(config.root or "."))


def absolute(path: str) -> str:
    """`path` from the working folder on: trials run in other folders."""
    return os.path.abspath(os.path.expanduser(path))


def is_file_path(pretrained: str) -> bool:
    """Whether weights come from a file, and not from a URL."""
    return not pretrained.startswith(("http://", "https://"))


def meaning_problems(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with the typed values of a sweep file; a key at fault in itself is not among them."""
    return [
        *_scenario_problems(values),
        *_data_problems(values),
        *_method_problems(values),
        *_compare_problems(values),
        *_batch_problems(values),
        *_scheduler_problems(values),
        *_other_problems(values),
    ]


def _scenario_problems(values: Mapping[str, Any]) -> Iterator[str]:
    given = values.get("scenario")
    if given is None:
        return
    if isinstance(given, Groups):
        written_out, named = given.steps is not None, given.named is not None
        if "name" in given.model_fields_set and not written_out:
            yield "scenario.name: acts only with `steps`"
        if "order" in given.model_fields_set and not named:
            yield "scenario.order: acts only with `named`"
    try:
        scenario = scenario_of(given)
    except DataError as error:
        where = "scenario.order" if error.subject == "class order" else "scenario"
        yield from (f"{where}: {line}" for line in error.problems)
        return
    if len(scenario.steps) < 2:
        yield f"scenario: a sweep needs at least two steps, but {scenario.name} has {len(scenario.steps)}"


def _scenario(values: Mapping[str, Any]) -> Scenario | None:
    try:
        return scenario_of(values["scenario"])
    except (KeyError, DataError):
        return None


def _data_problems(values: Mapping[str, Any]) -> Iterator[str]:
    if "scenario" not in values or "data" not in values:
        return
    try:
        config = data_of(values["data"], values["scenario"])
    except DataError as error:
        yield from (f"data.{line}" for line in error.problems)
        return
    yield from (f"data.{line}" for line in missing(config))
    scenario, names = _scenario(values), CLASS_NAMES.get(config.kind)
    if scenario and names and (unknown := [name for name in scenario.class_names if name not in names]):
        yield f"scenario: {config.kind} has no class {', '.join(map(repr, unknown))}; available: {', '.join(names)}"


def _method_problems(values: Mapping[str, Any]) -> Iterator[str]:
    method, detector, preset = values.get("method"), values.get("detector"), values.get("preset")
    for key, given, known in (("method", method, METHODS), ("detector", detector, DETECTORS)):
        if given is not None and given not in known:
            yield f"{key}: {given!r} is unknown; {choices(given, known)}"
    if method in METHODS and preset is not None and preset not in METHODS[method].presets:
        yield f"preset: {preset!r} is unknown to method {method!r}; {choices(preset, METHODS[method].presets)}"
    if method not in METHODS or detector not in DETECTORS:
        return
    if line := misfit(method, detector):
        yield f"detector: {line}"
    if "search" in values and "fixed" in values:
        yield from parameter_problems(values["search"], values["fixed"], method, _preset(values), detector)


def _preset(values: Mapping[str, Any]) -> str | None:
    """The preset that acts; None where method or preset are at fault."""
    if values.get("method") not in METHODS or "preset" not in values:
        return None
    method = METHODS[values["method"]]
    preset: str = values["preset"] or method.default_preset
    return preset if preset in method.presets else None


def _compare_problems(values: Mapping[str, Any]) -> Iterator[str]:
    known = [JOINT, *METHODS, *(f"{method}/{preset}" for method in METHODS for preset in METHODS[method].presets)]
    for entry in values.get("compare", ()):
        if entry not in known:
            yield f"compare: {entry!r} is unknown; {choices(entry, known)}"
        elif (
            entry != JOINT
            and values.get("detector") in DETECTORS
            and (line := misfit(entry.partition("/")[0], values["detector"]))
        ):
            yield f"compare: {line}"


def _batch_problems(values: Mapping[str, Any]) -> Iterator[str]:
    """Some released configurations work with one batch only; their presets name it."""
    if "training" not in values or values.get("detector") not in DETECTORS:
        return
    batch = values["training"].batch_size or DETECTORS[values["detector"]].recipe.batch_size

    def line(where: str, what: str, needed: int) -> Iterator[str]:
        if needed and needed != batch:
            yield f"{where}: `batch_size = {needed}` must hold for {what}, but got {batch}"

    if preset := _preset(values):
        own = getattr(METHODS[values["method"]].presets[preset], "images_per_device", 0)
        needed = values.get("fixed", {}).get("images_per_device", own)
        yield from line("training.batch_size", f"preset {preset!r}", needed)
    for entry in values.get("compare", ()):
        method, _, preset = entry.partition("/")
        if method in METHODS and (chosen := METHODS[method].presets.get(preset or METHODS[method].default_preset)):
            yield from line("compare", repr(entry), getattr(chosen, "images_per_device", 0))


def _scheduler_problems(values: Mapping[str, Any]) -> Iterator[str]:
    scenario, scheduler, training = _scenario(values), values.get("scheduler"), values.get("training")
    if scenario is None or scheduler is None or training is None or values.get("detector") not in DETECTORS:
        return
    epochs = training.epochs or DETECTORS[values["detector"]].recipe.epochs
    end = epochs * (len(scenario.steps) - 1)
    if scheduler.name == "asha" and scheduler.grace and scheduler.grace >= end > 0:
        yield f"scheduler.grace: `grace < {end}` (epochs of all incremental steps) must hold, but got {scheduler.grace}"


def _other_problems(values: Mapping[str, Any]) -> Iterator[str]:
    objective, resources, promotion = (values.get(key) for key in ("objective", "resources", "promotion"))
    if objective is not None and objective not in DIRECTIONS:
        yield f"objective: {objective!r} is unknown; {choices(objective, DIRECTIONS)}"
    if resources and resources.gpu > 1 and resources.gpu % 1:
        yield f"resources.gpu: must be a whole number above 1, but got {resources.gpu}"
    if promotion and len(set(promotion.seeds)) < len(promotion.seeds):
        yield f"promotion.seeds: must all differ, but got {promotion.seeds}"
    pretrained = values["training"].pretrained if "training" in values else None
    if pretrained and is_file_path(pretrained) and not os.path.isfile(absolute(pretrained)):
        yield f"training.pretrained: there is no file {absolute(pretrained)}"
    if "tracking_uri" in values and (problem := address_problem(tracking_uri(values["tracking_uri"]))):
        yield f"tracking_uri: {problem}"
