"""The sweep file: strict YAML to a checked `SweepSpec`. All mistakes are told at once; neither torch nor Ray is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from search_spaces.distributions import Distribution, Scalar, narrowed
from search_spaces.params import inactive, params_of, problems_of
from trainables.catalog import DETECTORS, METHODS, misfit
from trainables.datasets import DataConfig
from trainables.errors import DataError, SpecError
from trainables.files import digest
from trainables.metrics import DIRECTIONS
from trainables.scenarios import CLASS_NAMES, Scenario, custom_scenario, named_scenario

CONFIGS = Path(__file__).parent / "configs"
DECLARED = "declared"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Groups(_Strict):
    """A scenario written out: steps as groups of class names; or a named one in another class order."""

    name: str = "custom"
    steps: list[list[str]] | None = None
    named: str | None = None
    order: str | list[str] = "coco_id"


class Training(_Strict):
    """Budgets; what is left out comes from the detector's recipe."""

    base_epochs: int | None = Field(None, ge=1)
    epochs: int | None = Field(None, ge=1)
    batch_size: int | None = Field(None, ge=1)
    pretrained: str | None = None


class Scheduler(_Strict):
    """When a trial is stopped early: `asha` on the clock `progress` (epochs of incremental steps), or `none`."""

    name: Literal["asha", "none"] = "asha"
    grace: int | None = Field(None, ge=1)
    reduction_factor: int = Field(3, ge=2)


class Resources(_Strict):
    """Of one trial; a fraction of a GPU lets trials share it."""

    cpu: int = Field(1, ge=1)
    gpu: float = Field(0, ge=0)


class Promotion(_Strict):
    """The final training: its seeds, and its budget where it differs from the search's."""

    seeds: list[int] = Field([0, 1, 2], min_length=1)
    base_epochs: int | None = Field(None, ge=1)
    epochs: int | None = Field(None, ge=1)


class _File(_Strict):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")
    scenario: str | Groups
    data: dict[str, Any] | None = None
    detector: str
    method: str
    preset: str | None = None
    search: dict[str, Any]
    fixed: dict[str, Any] = {}
    training: Training = Training()
    trials: int = Field(16, ge=1)
    max_concurrent: int | None = Field(None, ge=1)
    objective: str = "ap_all"
    scheduler: Scheduler = Scheduler()
    seed: int = Field(0, ge=0)
    compare: list[str] = ["finetune"]
    resources: Resources = Resources()
    promotion: Promotion = Promotion()
    storage: str | None = None
    tracking_uri: str | None = None


@dataclass(frozen=True, kw_only=True)
class SweepSpec:
    """A sweep that can run. `space` and `constants` hold flat names, `method/...` and `optim/...`."""

    name: str
    scenario: Scenario
    data: DataConfig
    detector: str
    method: str
    preset: str
    space: Mapping[str, Distribution]
    constants: Mapping[str, Scalar]
    base_epochs: int
    epochs: int
    batch_size: int
    pretrained: str | None
    trials: int
    max_concurrent: int | None
    objective: str
    scheduler: Scheduler
    seed: int
    compare: tuple[str, ...]
    resources: Resources
    promotion: Promotion
    storage: Path
    tracking_uri: str
    text: str

    @property
    def mode(self) -> str:
        """`max` or `min`: which way the objective is better."""
        return DIRECTIONS[self.objective]

    @property
    def max_progress(self) -> int:
        """The clock at the end of a trial: the epochs of all incremental steps."""
        return self.epochs * (len(self.scenario.steps) - 1)

    @property
    def folder(self) -> Path:
        """Where this sweep keeps what is its own."""
        return self.storage / "sweeps" / self.name

    @property
    def identity(self) -> str:
        """Digest of what the sweep searches: a sweep can be resumed only under the same."""
        return digest(yaml.safe_load(self.text))

    def defaults(self) -> dict[str, Scalar]:
        """Trial 0: the preset's value of each searched parameter."""
        return {name: self.all_defaults()[name] for name in self.space}

    def all_defaults(self) -> dict[str, Scalar]:
        """Every parameter of method and optim: the preset's, then what the file fixes."""
        return {**_preset_values(self.method, self.preset, self.detector), **self.constants}


def load_spec(path: Path) -> SweepSpec:
    """The checked spec of a sweep file.

    Raises:
        SpecError: everything that is wrong with it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        shipped = ", ".join(sorted(config.name for config in CONFIGS.glob("*.yaml")))
        raise SpecError(str(path), [f"cannot be read ({error.strerror}); shipped sweep files: {shipped}"]) from error
    return parse_spec(text, path.name)


def parse_spec(text: str, origin: str) -> SweepSpec:
    """The checked spec of YAML `text`; `origin` names it in errors."""
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(origin, [f"must be YAML, but {' '.join(str(error).split())}"]) from error
    if not isinstance(raw, dict):
        raise SpecError(origin, [f"must hold keys and values, but holds {type(raw).__name__}"])
    problems: list[str] = []
    try:
        file = _File.model_validate(raw)
    except ValidationError as errors:
        problems = [_line(error) for error in errors.errors()]
    problems += _meaning_problems(raw)
    if problems:
        raise SpecError(origin, problems)
    return _resolved(file, text)


def _line(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"] if part not in ("Groups", "str"))
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key; available: {', '.join(_keys(error['loc'][:-1]))}"
    if error["type"] == "missing":
        return f"{where}: is missing"
    return f"{where}: {error['msg'][0].lower()}{error['msg'][1:]}, but got {error['input']!r}"


def _keys(parents: tuple[str | int, ...]) -> list[str]:
    models: dict[str, type[BaseModel]] = {
        "training": Training, "scheduler": Scheduler, "resources": Resources, "promotion": Promotion, "scenario": Groups,
    }  # fmt: skip
    return list((models[str(parents[0])] if parents else _File).model_fields)


def _meaning_problems(raw: dict[str, Any]) -> list[str]:
    """What types alone cannot tell; each check runs where the values it needs have their type."""
    problems: list[str] = []
    scenario = _try(lambda: _scenario(raw.get("scenario")), "scenario", problems)
    data = _try(lambda: _data(raw), "data", problems) if scenario else None
    if scenario and data:
        problems += _class_problems(scenario, data)
    method, detector = raw.get("method"), raw.get("detector")
    known_method, known_detector = method in METHODS, detector in DETECTORS
    if isinstance(method, str) and not known_method:
        problems.append(f"method: {method!r} is unknown; available: {', '.join(METHODS)}")
    if isinstance(detector, str) and not known_detector:
        problems.append(f"detector: {detector!r} is unknown; available: {', '.join(DETECTORS)}")
    if known_method and known_detector:
        if line := misfit(method, detector):
            problems.append(f"detector: {line}")
        problems += _parameter_problems(raw, method, detector)
    problems += _compare_problems(raw.get("compare", []), detector if known_detector else None)
    objective = raw.get("objective", "ap_all")
    if isinstance(objective, str) and objective not in DIRECTIONS:
        problems.append(f"objective: {objective!r} is unknown; available: {', '.join(DIRECTIONS)}")
    if scenario and len(scenario.steps) < 2:
        problems.append(f"scenario: a sweep needs at least two steps, but {scenario.name} has {len(scenario.steps)}")
    return problems


def _try(read: Any, key: str, problems: list[str]) -> Any:
    try:
        return read()
    except DataError as error:
        problems += [f"{key}: {line}" for line in error.problems]
    except (TypeError, ValidationError) as error:
        if isinstance(error, TypeError):
            problems.append(f"{key}: {error}")
    return None


def _scenario(raw: Any) -> Scenario | None:
    if isinstance(raw, str):
        return named_scenario(raw)
    if not isinstance(raw, dict):
        return None
    groups = Groups.model_validate(raw)
    if (groups.steps is None) == (groups.named is None):
        raise DataError("scenario", ["either `steps` or `named` must be given"])
    if groups.named is not None:
        return named_scenario(groups.named, groups.order)
    return custom_scenario(groups.steps or [], groups.name)


def _data(raw: dict[str, Any]) -> DataConfig | None:
    given = raw.get("data")
    if given is None:
        family = _family(raw.get("scenario"))
        if family is None:
            raise DataError("data", ["is missing; a scenario of one's own needs it"])
        given = {"kind": family}
    if not isinstance(given, dict):
        return None
    if "sizes" in given and isinstance(given["sizes"], list):
        given = given | {"sizes": tuple(given["sizes"])}
    if unknown := sorted(set(given) - set(DataConfig.__dataclass_fields__)):
        available = ", ".join(DataConfig.__dataclass_fields__)
        raise DataError("data", [f"{name}: unknown key; available: {available}" for name in unknown])
    return DataConfig(**given)


def _family(scenario: Any) -> str | None:
    name = scenario.get("named") if isinstance(scenario, dict) else scenario
    return name.partition("/")[0] if isinstance(name, str) else None


def _class_problems(scenario: Scenario, data: DataConfig) -> list[str]:
    names = CLASS_NAMES.get(data.kind)
    unknown = [name for name in scenario.class_names if names is not None and name not in names]
    return [f"scenario: {data.kind} has no class {name!r}; available: {', '.join(names or ())}" for name in unknown]


def _parameter_problems(raw: dict[str, Any], method: str, detector: str) -> list[str]:
    classes = {"method": METHODS[method].params, "optim": DETECTORS[detector].optim}
    problems: list[str] = []
    preset = raw.get("preset")
    if preset is not None and preset not in METHODS[method].presets:
        problems.append(f"preset: {preset!r} is unknown; available: {', '.join(METHODS[method].presets)}")
    search, fixed = raw.get("search"), raw.get("fixed", {})
    if not isinstance(search, dict) or not isinstance(fixed, dict):
        return problems
    available = ", ".join(name for cls in classes.values() for name in params_of(cls))
    for section, names in (("search", search), ("fixed", fixed)):
        problems += [
            f"{section}.{name}: method {method!r} has no such parameter; available: {available}"
            for name in names
            if not any(name in params_of(cls) for cls in classes.values())
        ]
    problems += [f"fixed.{name}: is searched as well; one of the two must go" for name in fixed if name in search]
    for cls in classes.values():
        own = {name: value for name, value in fixed.items() if name in params_of(cls)}
        problems += [f"fixed.{line}" for line in problems_of(cls, own)]
        searched = [name for name in search if name in params_of(cls)]
        for name in searched:
            try:
                _distribution(name, params_of(cls)[name].distribution, search[name])
            except (ValueError, TypeError) as error:
                problems.append(f"search.{name}: {error}")
        if preset in METHODS[method].presets or preset is None:
            values = {**_preset_values_of(cls, method, preset), **own}
            settled = {name: value for name, value in values.items() if name not in search}
            for name in inactive(cls, searched, settled):
                when = params_of(cls)[name].when
                assert when is not None
                needs = f"{when.parent} in {', '.join(map(str, when.values))}"
                problems.append(f"search.{name}: acts only with {needs}, but {when.parent} is {settled[when.parent]}")
    if not search:
        problems.append(f"search: at least one parameter must be searched; available: {available}")
    return problems


def _distribution(name: str, declared: Distribution, change: Any) -> Distribution:
    if change == DECLARED:
        return declared
    if not isinstance(change, list | dict):
        raise ValueError(f"{name} takes `{DECLARED}`, a range or a list, but got {change!r}; a single value goes to `fixed`")
    return narrowed(name, declared, change)


def _compare_problems(entries: Any, detector: str | None) -> list[str]:
    if not isinstance(entries, list):
        return []
    known = {f"{method}/{preset}" for method in METHODS for preset in METHODS[method].presets} | set(METHODS)
    problems = [f"compare: {entry!r} is unknown; available: {', '.join(sorted(known))}" for entry in entries if entry not in known]
    if detector:
        lines = (misfit(entry.partition("/")[0], detector) for entry in entries if entry in known)
        problems += [f"compare: {line}" for line in lines if line]
    return problems


def _preset_values_of(cls: type, method: str, preset: str | None) -> dict[str, Scalar]:
    entry = METHODS[method]
    chosen = entry.presets[preset or entry.default_preset] if cls is entry.params else cls()
    return {name: getattr(chosen, name) for name in params_of(cls)}


def _preset_values(method: str, preset: str | None, detector: str) -> dict[str, Scalar]:
    """Flat values of a preset and of the detector's optim class."""
    prefixes = {"method": METHODS[method].params, "optim": DETECTORS[detector].optim}
    return {
        f"{prefix}/{name}": value
        for prefix, cls in prefixes.items()
        for name, value in _preset_values_of(cls, method, preset).items()
    }


preset_values = _preset_values


def _resolved(file: _File, text: str) -> SweepSpec:
    scenario, data = _scenario(_raw(file.scenario)), _data({"scenario": _raw(file.scenario), "data": file.data})
    assert scenario is not None
    assert data is not None
    recipe = DETECTORS[file.detector].recipe
    classes = {"method": METHODS[file.method].params, "optim": DETECTORS[file.detector].optim}
    flat = {name: f"{prefix}/{name}" for prefix, cls in classes.items() for name in params_of(cls)}
    declared = {name: param.distribution for cls in classes.values() for name, param in params_of(cls).items()}
    storage = file.storage or os.environ.get("PALIMPSEST_STORAGE") or "runs"
    return SweepSpec(
        name=file.name,
        scenario=scenario,
        data=data,
        detector=file.detector,
        method=file.method,
        preset=file.preset or METHODS[file.method].default_preset,
        space={flat[name]: _distribution(name, declared[name], change) for name, change in file.search.items()},
        constants={flat[name]: value for name, value in file.fixed.items()},
        base_epochs=file.training.base_epochs or recipe.base_epochs,
        epochs=file.training.epochs or recipe.epochs,
        batch_size=file.training.batch_size or recipe.batch_size,
        pretrained=file.training.pretrained,
        trials=file.trials,
        max_concurrent=file.max_concurrent,
        objective=file.objective,
        scheduler=file.scheduler,
        seed=file.seed,
        compare=tuple(file.compare),
        resources=file.resources,
        promotion=file.promotion,
        storage=Path(storage).resolve(),
        tracking_uri=tracking_uri(file.tracking_uri),
        text=text,
    )


def tracking_uri(given: str | None = None) -> str:
    """The MLflow server: as given, else by `MLFLOW_TRACKING_URI`, else `sqlite:///mlflow.db` in the working folder."""
    uri = given or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    local = uri.removeprefix("sqlite:///")
    return f"sqlite:///{Path(local).resolve()}" if local != uri else uri


def _raw(scenario: str | Groups) -> Any:
    return scenario if isinstance(scenario, str) else scenario.model_dump()
