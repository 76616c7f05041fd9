"""What types cannot tell of a sweep file. Each check runs where the values that it needs are right in themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from sweeps.connection import address_problem, tracking_uri
from sweeps.spec_file import ANY, JOINT, Data, Groups, choices
from sweeps.spec_parameters import parameter_problems
from sweeps.spec_paths import absolute, missing_file
from sweeps.spec_search import search_problems
from sweeps.spec_teacher import teacher_problems
from trainables.catalog import DETECTORS, METHODS, misfit
from trainables.datasets import KINDS, DataConfig, missing
from trainables.errors import DataError, masked
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


def meaning_problems(values: Mapping[str, Any], check_files: bool = True) -> list[str]:
    """What is wrong with the typed values of a sweep file; a key at fault in itself is not among them."""
    return [
        *_scenario_problems(values),
        *_report_problems(values),
        *_data_problems(values, check_files),
        *_method_problems(values),
        *teacher_problems(values, _scenario(values), check_files),
        *_compare_problems(values),
        *_batch_problems(values),
        *search_problems(values, scenario.num_trained if (scenario := _scenario(values)) else None),
        *_other_problems(values, check_files),
    ]


def _scenario_problems(values: Mapping[str, Any]) -> Iterator[str]:
    if "scenario" not in values or "scenarios" not in values:
        return
    several, pooled = values["scenarios"], values.get("pooled")
    if bool(values["scenario"]) == bool(several):
        yield "scenario: is missing" if not several else "scenario: and `scenarios` must not both be given"
        return
    if pooled and len(several) < 2:
        yield f"pooled: acts only with several `scenarios`, but there are {len(several)}"
    if several and not pooled:
        yield "pooled: is missing; without it each scenario is a sweep of its own"
    for given in several or [values["scenario"]]:
        yield from _problems_of_scenario(given, taught=values.get("teacher") != [])


def _problems_of_scenario(given: str | Groups, taught: bool) -> Iterator[str]:
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
    if len(scenario.steps) < 2 and not taught:
        yield f"scenario: needs at least two steps, or a `teacher`, but {scenario.name} has one"


def _report_problems(values: Mapping[str, Any]) -> Iterator[str]:
    scenario = _scenario(values)
    for given in values.get("report_on", ()):
        yield from _problems_of_reported(given, scenario)


def _problems_of_reported(given: str | Groups, scenario: Scenario | None) -> Iterator[str]:
    try:
        reported = scenario_of(given)
    except DataError as error:
        yield from (f"report_on: {line}" for line in error.problems)
        return
    if len(reported.steps) < 2:
        yield f"report_on: needs at least two steps, but {reported.name} has {len(reported.steps)}"
    if scenario and (strange := sorted(set(reported.class_names) - set(scenario.class_names))):
        yield f"report_on: must have the data's classes, but {', '.join(strange)} are in none of the scenario's steps"


def _scenario(values: Mapping[str, Any]) -> Scenario | None:
    """The scenario, of several the first; None where it is at fault."""
    try:
        given = values["scenario"] or values["scenarios"][0]
        return scenario_of(given)
    except (KeyError, IndexError, DataError):
        return None


def _data_problems(values: Mapping[str, Any], check_files: bool) -> Iterator[str]:
    given = values.get("scenario") or next(iter(values.get("scenarios", ())), None)
    if not given or "data" not in values:
        return
    try:
        config = data_of(values["data"], given)
    except DataError as error:
        yield from (f"data.{line}" for line in error.problems)
        return
    if check_files:
        yield from (f"data.{line}" for line in missing(config))
    scenario, names = _scenario(values), CLASS_NAMES.get(config.kind)
    if scenario and names and (unknown := [name for name in scenario.class_names if name not in names]):
        yield f"scenario: {config.kind} has no class {', '.join(map(repr, unknown))}; available: {', '.join(names)}"


def _method_problems(values: Mapping[str, Any]) -> Iterator[str]:
    methods, detector = values.get("method", ()), values.get("detector")
    named = [("method", method, METHODS) for method in methods]
    for key, given, known in (*named, *([("detector", detector, DETECTORS)] if detector is not None else ())):
        if given not in known:
            yield f"{key}: {given!r} is unknown; {choices(given, known)}"
    if len(set(methods)) < len(methods):
        yield f"method: must all differ, but got {', '.join(methods)}"
    yield from _preset_problems(values)
    if detector not in DETECTORS or not methods or not all(method in METHODS for method in methods):
        return
    misfits = [line for method in methods if (line := misfit(method, detector))]
    yield from (f"detector: {line}" for line in misfits)
    if "search" in values and "fixed" in values:
        presets = {method: _preset(values, method) for method in methods}
        yield from parameter_problems(values["search"], values["fixed"], presets, detector)


def _preset_problems(values: Mapping[str, Any]) -> Iterator[str]:
    methods, presets = values.get("method"), values.get("preset")
    if methods is None or presets is None:
        return
    if ANY in presets and len(methods) > 1:
        yield f"preset: with several methods, must name the method of each, such as {{{methods[0]}: {presets[ANY]}}}"
        return
    for owner, preset in presets.items():
        method = methods[0] if owner == ANY else owner
        if method not in methods:
            yield f"preset.{owner}: the sweep has no such method; {choices(owner, methods)}"
        elif method in METHODS and preset not in METHODS[method].presets:
            yield f"preset: {preset!r} is unknown to method {method!r}; {choices(preset, METHODS[method].presets)}"


def _preset(values: Mapping[str, Any], method: str) -> str | None:
    """The preset of a method that acts; None where method or preset are at fault."""
    if method not in METHODS or "preset" not in values:
        return None
    preset: str = chosen_preset(values["preset"], method)
    return preset if preset in METHODS[method].presets else None


def chosen_preset(presets: Mapping[str, str], method: str) -> str:
    """The preset of one method that a sweep file asks for."""
    return presets.get(method) or presets.get(ANY) or METHODS[method].default_preset


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
    chosen = [
        ("training.batch_size", f"preset {preset!r}", method, preset)
        for method in values.get("method", ())
        if (preset := _preset(values, method))
    ]
    for entry in values.get("compare", ()):
        method, _, preset = entry.partition("/")
        chosen.append(("compare", repr(entry), method, preset))
    for where, what, method, preset in chosen:
        if method in METHODS and (needed := METHODS[method].batch_sizes.get(preset, batch)) != batch:
            yield f"{where}: `batch_size = {needed}` must hold for {what}, but got {batch}"


def _other_problems(values: Mapping[str, Any], check_files: bool) -> Iterator[str]:
    resources, promotion = (values.get(key) for key in ("resources", "promotion"))
    if resources and resources.gpu > 1 and resources.gpu % 1:
        yield f"resources.gpu: must be a whole number above 1, but got {resources.gpu}"
    if resources and resources.cpu % resources.devices:
        must = f"must be a multiple of the {resources.devices} devices, which share them"
        yield f"resources.cpu: {must}, but got {resources.cpu}"
    if promotion and len(set(promotion.seeds)) < len(promotion.seeds):
        yield f"promotion.seeds: must all differ, but got {promotion.seeds}"
    pretrained = values["training"].pretrained if "training" in values else None
    if "training" in values and values["training"].freeze_base and not pretrained:
        yield "training.freeze_base: freezes random weights unless training.pretrained is given"
    if check_files and (problem := missing_file(pretrained)):
        yield f"training.pretrained: {problem}"
    if "test_cfg" in values and (nms := values["test_cfg"].nms).type == "nms":
        for key in ("beta", "gate", "sigma"):
            if getattr(nms, key) is not None:
                yield f"test_cfg.nms.{key}: acts only with type: voting_cluster_diounms"
    if (study := values.get("study")) is not None and (problem := _study_problem(study)):
        yield f"study: {problem}"
    if "tracking_uri" in values and (problem := address_problem(tracking_uri(values["tracking_uri"]))):
        yield f"tracking_uri: {problem}"


def _study_problem(url: str) -> str | None:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        return f"must be the URL of a database, but {error}"
    if not re.fullmatch(r"sqlite|postgresql(\+\w+)?", parts.scheme):
        return (
            f"must be `sqlite:///<file>` or `postgresql+psycopg://<user>@<host>/<database>`, but got {parts.scheme!r}"
        )
    return None


def password_problems(text: str) -> list[str]:
    """What is wrong with a sweep file that holds a password, even in a comment: the file is recorded."""
    remedy = "put it into MLFLOW_TRACKING_URI, MLFLOW_TRACKING_PASSWORD, PGPASSWORD or ~/.pgpass"
    return [
        f"{shown.strip()}: must hold no password, since sweep files are recorded; {remedy}"
        for line in text.splitlines()
        if (shown := masked(line)) != line
    ]
