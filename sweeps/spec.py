"""The sweep file: strict YAML to a checked `SweepSpec`, every mistake told at once; loads neither torch nor Ray."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from search_spaces.distributions import Distribution, Scalar
from search_spaces.params import METHOD, When
from sweeps.connection import tracking_uri
from sweeps.samplers import acting, grid
from sweeps.spec_checks import chosen_preset, data_of, meaning_problems, password_problems, scenario_of
from sweeps.spec_file import (
    JOINT,
    Aimed,
    Budget,
    Promotion,
    Resources,
    Scheduler,
    SweepFile,
    Tables,
    Teacher,
    typed_values,
)  # fmt: skip
from sweeps.spec_parameters import conditions, constants, preset_values, space
from sweeps.spec_paths import absolute, weights_of
from sweeps.spec_search import constraint_of, known_on_the_way
from sweeps.spec_yaml import read_yaml
from trainables.catalog import DETECTORS
from trainables.datasets import DataConfig
from trainables.errors import CheckpointError, SpecError, masked
from trainables.files import digest, read_at_most
from trainables.objectives import Aim, Objective
from trainables.scenarios import Scenario
from trainables.store_remote import is_url

__all__ = ["CONFIGS", "SweepSpec", "load_spec", "parse_spec", "preset_values", "stored_spec"]

CONFIGS = Path(__file__).parent / "configs"
MAX_BYTES = 1 << 20  # of a sweep file


@dataclass(frozen=True, kw_only=True)
class SweepSpec:
    """A sweep that can run. What its keys mean is told by `sweeps.spec_file.SweepFile`.

    Attributes:
        methods: the preset of each method; the first of them stands for the sweep where one must.
        teachers: of a scenario of one step; the last one teaches the student. A checkpoint's path is absolute.
        each_method: whether the methods are searched alike, each by itself.
        scenarios: what a trial learns, one after another: the file's (`whole_scenarios`), the shortest first, or the
            first increment of each.
        report_scenarios: what the final training learns.
        max_failures: how often a trial is tried again that lost its process or its node.
        space: what is searched, by flat name (`erd/lambda_cls`, `optim/lr_scale`); `method` where there are several.
        conditions: under which values of others a searched parameter acts.
        constants: what the file fixes, by flat name.
        aim: objectives and constraints.
        base_epochs: as the file says or, like `epochs` and `batch_size`, as the detector's recipe does.
        nms: `test_cfg.nms` where it is not the recipe's.
        pretrained: an absolute path or a URL.
        freeze_base: see `TrialConfig`.
        store: of what sweeps share: a folder or a URL.
        joint: whether the joint references are trained; `compare` has the chains alone.
        text: the sweep file as it was read.
    """

    name: str
    scenarios: tuple[Scenario, ...]
    whole_scenarios: tuple[Scenario, ...]
    report_scenarios: tuple[Scenario, ...]
    data: DataConfig
    detector: str
    methods: Mapping[str, str]
    teachers: tuple[Teacher, ...]
    each_method: bool
    space: Mapping[str, Distribution]
    conditions: Mapping[str, list[When]]
    constants: Mapping[str, Scalar]
    base_epochs: int
    epochs: int
    batch_size: int
    pretrained: str | None
    freeze_base: bool
    ema_momentum: float
    nms: Mapping[str, Scalar]
    trials: int
    max_concurrent: int | None
    max_failures: int = 2
    aim: Aim
    sampler: str
    scheduler: Scheduler
    budget: Budget
    seed: int
    seeds: int
    warm_start: tuple[str, ...]
    joint: bool
    compare: tuple[str, ...]
    resources: Resources
    tables: Tables
    promotion: Promotion
    storage: Path
    store: Path | str
    study: str | None
    tracking_uri: str
    text: str

    def __getstate__(self) -> dict[str, Any]:
        """All but a password in MLflow's address: Tune's snapshots hold the search, and with it the spec."""
        return {**self.__dict__, "tracking_uri": masked(self.tracking_uri)}

    @property
    def scenario(self) -> Scenario:
        """The first scenario."""
        return self.scenarios[0]

    @property
    def method(self) -> str:
        """The first method."""
        return next(iter(self.methods))

    @property
    def objective(self) -> Objective:
        """The first objective: what schedulers and the display see."""
        return self.aim.objectives[0]

    @property
    def devices(self) -> int:
        """How many train a trial together."""
        return self.resources.devices

    @property
    def max_progress(self) -> int:
        """The clock at the end of a trial: the epochs of all steps that it trains."""
        return self.epochs * sum(scenario.num_trained for scenario in self.scenarios)

    @property
    def folder(self) -> Path:
        """Where this sweep keeps what is its own."""
        return self.storage / "sweeps" / self.name

    @property
    def protocol(self) -> str:
        """What was tuned on what, in words: who reports a figure must say it."""
        tuned, reported = (", ".join(one.name for one in some) for some in (self.scenarios, self.report_scenarios))
        seeds = f", leaders chosen under {self.seeds} seeds" if self.seeds > 1 else ""
        same = "on the same scenario" if len(self.scenarios) == 1 else "on the same scenarios"
        where = f"on {reported}" if tuned != reported else same
        return f"tuned on {tuned} (tune split){seeds}; reported {where} (test split)"

    @property
    def study_url(self) -> str:
        """The database that shows the sweep's Optuna study."""
        return self.study or f"sqlite:///{self.folder / 'study.db'}"

    @property
    def identity(self) -> str:
        """Digest of what the sweep searches: a sweep can be resumed only under the same."""
        return digest(read_yaml(self.text))

    def first_points(self) -> list[dict[str, Scalar]]:
        """The trials that the search begins with: each method's preset, then, of a grid, all others."""
        points = []
        for method in self.methods:
            values = {METHOD: method, **self.all_defaults(method)}
            points.append(acting({name: values[name] for name in self.space if name in values}, self.conditions))
        if self.sampler == "grid":
            points += [point for point in grid(self.space, self.conditions) if point not in points]
        return points

    def all_defaults(self, method: str | None = None) -> dict[str, Scalar]:
        """Every parameter of a method (the first one) and of optim: the preset's, then what the file fixes."""
        method = method or self.method
        values = preset_values(method, self.methods[method], self.detector)
        return {name: self.constants.get(name, value) for name, value in values.items()}


def load_spec(path: Path) -> SweepSpec:
    """The checked spec of a sweep file of one scenario.

    Raises:
        SpecError: everything that is wrong with it.
    """
    return parse_spec(_read(path), path.name)


def load_specs(path: Path) -> list[SweepSpec]:
    """The checked specs of a sweep file: a sweep for each of its `scenarios`, named after both; else the one it is.

    Raises:
        SpecError: everything that is wrong with it.
    """
    text = _read(path)
    parts = scenario_parts(text)
    if parts is None:
        return [parse_spec(text, path.name)]
    specs: list[SweepSpec] = []
    problems: list[str] = []
    for part in parts:
        try:
            specs.append(parse_spec(part, path.name))
        except SpecError as error:
            problems += error.problems
    if len(parts) < 2:
        problems.append("scenarios: needs a list of at least two; one alone is the key `scenario`")
    if any(spec.scheduler.name == "pbt" for spec in specs):
        problems.append("scheduler.name: pbt trains one scenario, but there are several")
    if len({spec.name for spec in specs}) < len(specs):
        problems.append(f"scenarios: must all differ, but got {', '.join(spec.scenario.name for spec in specs)}")
    if problems:
        raise SpecError(path.name, list(dict.fromkeys(problems)))
    return specs


def scenario_parts(text: str) -> list[str] | None:
    """The sweep file of each scenario of `scenarios`; None where the file has no such key, or cannot be read."""
    try:
        content = read_yaml(text)
    except ValueError:
        return None
    if not isinstance(content, dict) or not isinstance(content.get("scenarios"), list) or content.get("pooled"):
        return None
    rest = {key: value for key, value in content.items() if key != "scenarios"}
    # A `scenario` beside it stays, for its error; so does what else is wrong.
    return [
        yaml.safe_dump(
            {**rest, "name": f"{rest.get('name', '')}.{_slug(one, number)}", "scenario": one}, sort_keys=False
        )
        for number, one in enumerate(content["scenarios"], start=1)
    ]


def _slug(scenario: Any, number: int) -> str:
    """A scenario in the name of its sweep: `digits-5-5`."""
    name = scenario.get("name") or scenario.get("named") if isinstance(scenario, dict) else scenario
    return re.sub(r"[^A-Za-z0-9]+", "-", str(name or number))


def _read(path: Path) -> str:
    try:
        return read_at_most(path.expanduser(), MAX_BYTES).decode()  # `ray job submit` puts a `~` into quotes
    except OSError as error:
        shipped = ", ".join(sorted(config.name for config in CONFIGS.glob("*.yaml")))
        problem = f"cannot be read ({error.strerror}); shipped sweep files, in {CONFIGS}: {shipped}"
        raise SpecError(str(path), [problem]) from error
    except UnicodeDecodeError as error:
        raise SpecError(str(path), [f"must be a text in UTF-8, but byte {error.start} is not"]) from error
    except ValueError as error:
        raise SpecError(str(path), [str(error)]) from error


def parse_spec(text: str, origin: str, check_files: bool = True) -> SweepSpec:
    """The checked spec of YAML `text`; `origin` names it in errors.

    Args:
        check_files: whether the files that it names must be there; who only reads about a sweep needs none.

    Raises:
        SpecError: everything that is wrong with it.
    """
    try:
        content = read_yaml(text)
    except ValueError as error:
        raise SpecError(origin, error.args) from error
    if not isinstance(content, dict):
        raise SpecError(origin, [f"must hold keys and values, but holds {type(content).__name__}"])
    values, problems = typed_values(content)
    problems += [*meaning_problems(values, check_files), *password_problems(text)]
    if problems:
        raise SpecError(origin, problems)
    return _resolved(SweepFile.model_validate(content), text)


def stored_spec(name: str, storage: Path | None = None) -> SweepSpec:
    """The spec that a sweep was started with.

    Raises:
        SpecError: no such sweep in the storage.
        CheckpointError: its record is broken.
    """
    root = storage_folder(storage)
    known = {found.parent.name: found for found in sorted(root.glob("sweeps/*/spec.json"))}
    if name not in known:
        raise SpecError(name, [f"there is no such sweep in {root}; available: {', '.join(known) or 'none'}"])
    try:
        record, root = json.loads(known[name].read_bytes()), root.resolve()
        text, started_in = record["text"], record["started_in"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(str(known[name]), [f"cannot be read: {error!r}"]) from error
    try:
        with contextlib.chdir(started_in):  # what the file names relative to it
            spec = parse_spec(text, name)
    except OSError as error:
        problem = f"must be read in {started_in}, where the sweep was started, but: {error.strerror}"
        raise CheckpointError(str(known[name]), [problem]) from error
    return replace(spec, storage=root, store=root / "store" if spec.store == spec.storage / "store" else spec.store)


def storage_folder(given: str | Path | None) -> Path:
    """A sweep's storage: as given, else by `PALIMPSEST_STORAGE`, else `runs` in the working folder."""
    return Path(absolute(given or os.environ.get("PALIMPSEST_STORAGE") or "runs"))


def _store(given: str | None, storage: Path) -> Path | str:
    if given is None:
        return storage / "store"
    return given if is_url(given) else Path(absolute(given))


def _resolved(file: SweepFile, text: str) -> SweepSpec:
    recipe = DETECTORS[file.detector].recipe
    storage = storage_folder(file.storage)
    base_epochs = file.training.base_epochs or recipe.base_epochs
    given = file.scenarios or [file.scenario]
    scenarios = tuple(sorted(map(scenario_of, given), key=lambda scenario: len(scenario.steps)))
    searched = space(file.search, file.method, file.detector)
    stoppable = known_on_the_way(file.objective) and not file.each_method
    early = file.scheduler.name or ("asha" if stoppable else "none")
    spec = SweepSpec(
        name=file.name,
        scenarios=tuple(map(_first_increment, scenarios)) if file.budget.steps == "first" else scenarios,
        whole_scenarios=scenarios,
        report_scenarios=tuple(map(scenario_of, file.report_on)) or scenarios,
        data=data_of(file.data, given[0]),
        detector=file.detector,
        methods={method: chosen_preset(file.preset, method) for method in file.method},
        teachers=tuple(map(_teacher, file.teacher)),
        each_method=file.each_method,
        space=searched,
        conditions=conditions(searched, file.method, file.detector),
        constants=constants(file.fixed, file.method, file.detector),
        base_epochs=base_epochs,
        epochs=file.training.epochs or (base_epochs if file.teacher else recipe.epochs),
        batch_size=file.training.batch_size or recipe.batch_size,
        pretrained=weights_of(file.training.pretrained),
        freeze_base=file.training.freeze_base,
        ema_momentum=file.training.ema_momentum,
        nms=file.test_cfg.nms.model_dump(exclude_none=True, exclude_defaults=True),
        trials=file.trials or 16,
        max_concurrent=file.max_concurrent,
        aim=Aim(tuple(map(_objective, file.objective)), tuple(map(constraint_of, file.constraints)), file.pooled),
        sampler=file.sampler,
        scheduler=file.scheduler.model_copy(update={"name": early}),
        budget=file.budget,
        seed=file.seed,
        seeds=file.seeds,
        warm_start=tuple(file.warm_start),
        joint=JOINT in file.compare and not file.teacher,
        compare=tuple(entry for entry in file.compare if entry != JOINT),
        resources=file.resources,
        tables=file.tables,
        promotion=file.promotion,
        storage=storage,
        study=tracking_uri(file.study) if file.study else None,  # a database's path is made absolute
        store=_store(file.store, storage),
        tracking_uri=tracking_uri(file.tracking_uri),
        text=text,
    )
    if spec.sampler == "grid":
        points = len(spec.first_points())
        return replace(spec, trials=min(points, file.trials or points))
    return spec


def _teacher(given: Teacher) -> Teacher:
    files = {"checkpoint": weights_of(given.checkpoint), "pretrained": weights_of(given.pretrained)}
    return given.model_copy(update=files)


def _first_increment(scenario: Scenario) -> Scenario:
    return Scenario(f"{scenario.name}: first increment", scenario.steps[:2])


def _objective(aimed: Aimed) -> Objective:
    return Objective(aimed.metric, aimed.over if isinstance(aimed.over, str) else tuple(aimed.over))
