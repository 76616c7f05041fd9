"""The sweep file: strict YAML to a checked `SweepSpec`, every mistake told at once; loads neither torch nor Ray."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from search_spaces.distributions import Distribution, Scalar
from sweeps.connection import tracking_uri
from sweeps.spec_checks import absolute, data_of, is_file_path, meaning_problems, scenario_of
from sweeps.spec_file import JOINT, Promotion, Resources, Scheduler, SweepFile, Tables, read_yaml, typed_values
from sweeps.spec_parameters import constants, preset_values, space
from trainables.catalog import DETECTORS, METHODS
from trainables.datasets import DataConfig
from trainables.errors import SpecError
from trainables.files import digest
from trainables.metrics import DIRECTIONS
from trainables.scenarios import Scenario

__all__ = ["CONFIGS", "SweepSpec", "load_spec", "parse_spec", "preset_values", "stored_spec", "tracking_uri"]

CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True, kw_only=True)
class SweepSpec:
    """A sweep that can run. What its keys mean is told by `sweeps.spec_file.SweepFile`.

    Attributes:
        space: what is searched, by flat name: `method/...` and `optim/...`.
        constants: what the file fixes, by flat name.
        base_epochs: as the file says or, like `epochs` and `batch_size`, as the detector's recipe does.
        pretrained: an absolute path or a URL.
        store: of what sweeps share: a folder or a URL.
        joint: whether the joint references are trained; `compare` has the chains alone.
        text: the sweep file as it was read.
    """

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
    ema_momentum: float
    trials: int
    max_concurrent: int | None
    objective: str
    scheduler: Scheduler
    seed: int
    joint: bool
    compare: tuple[str, ...]
    resources: Resources
    tables: Tables
    promotion: Promotion
    storage: Path
    store: Path | str
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
        return digest(read_yaml(self.text))

    def defaults(self) -> dict[str, Scalar]:
        """Trial 0: the preset's value of each searched parameter."""
        return {name: self.all_defaults()[name] for name in self.space}

    def all_defaults(self) -> dict[str, Scalar]:
        """Every parameter of method and optim: the preset's, then what the file fixes."""
        return {**preset_values(self.method, self.preset, self.detector), **self.constants}


def load_spec(path: Path) -> SweepSpec:
    """The checked spec of a sweep file.

    Raises:
        SpecError: everything that is wrong with it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        shipped = ", ".join(sorted(config.name for config in CONFIGS.glob("*.yaml")))
        problem = f"cannot be read ({error.strerror}); shipped sweep files, in {CONFIGS}: {shipped}"
        raise SpecError(str(path), [problem]) from error
    except UnicodeDecodeError as error:
        raise SpecError(str(path), [f"must be a text in UTF-8, but byte {error.start} is not"]) from error
    return parse_spec(text, path.name)


def parse_spec(text: str, origin: str) -> SweepSpec:
    """The checked spec of YAML `text`; `origin` names it in errors.

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
    problems += meaning_problems(values)
    if problems:
        raise SpecError(origin, problems)
    return _resolved(SweepFile.model_validate(content), text)


def stored_spec(name: str, storage: Path | None = None) -> SweepSpec:
    """The spec that a sweep was started with.

    Raises:
        SpecError: no such sweep in the storage.
    """
    root = storage or Path(os.environ.get("PALIMPSEST_STORAGE") or "runs")
    path = root / "sweeps" / name / "spec.json"
    if not path.exists():
        there = ", ".join(sorted(found.parent.name for found in root.glob("sweeps/*/spec.json"))) or "none"
        raise SpecError(name, [f"there is no such sweep in {root}; available: {there}"])
    record, root = json.loads(path.read_text()), root.resolve()
    with contextlib.chdir(record["started_in"]):  # what the file names relative to it
        spec = parse_spec(record["text"], name)
    return replace(spec, storage=root, store=root / "store" if spec.store == spec.storage / "store" else spec.store)


def _store(given: str | None, storage: Path) -> Path | str:
    if given is None:
        return storage / "store"
    return given if "://" in given else Path(absolute(given))


def _resolved(file: SweepFile, text: str) -> SweepSpec:
    recipe, pretrained = DETECTORS[file.detector].recipe, file.training.pretrained
    storage = file.storage or os.environ.get("PALIMPSEST_STORAGE") or "runs"
    return SweepSpec(
        name=file.name,
        scenario=scenario_of(file.scenario),
        data=data_of(file.data, file.scenario),
        detector=file.detector,
        method=file.method,
        preset=file.preset or METHODS[file.method].default_preset,
        space=space(file.search, file.method, file.detector),
        constants=constants(file.fixed, file.method, file.detector),
        base_epochs=file.training.base_epochs or recipe.base_epochs,
        epochs=file.training.epochs or recipe.epochs,
        batch_size=file.training.batch_size or recipe.batch_size,
        pretrained=absolute(pretrained) if pretrained and is_file_path(pretrained) else pretrained,
        ema_momentum=file.training.ema_momentum,
        trials=file.trials,
        max_concurrent=file.max_concurrent,
        objective=file.objective,
        scheduler=file.scheduler,
        seed=file.seed,
        joint=JOINT in file.compare,
        compare=tuple(entry for entry in file.compare if entry != JOINT),
        resources=file.resources,
        tables=file.tables,
        promotion=file.promotion,
        storage=Path(absolute(storage)),
        store=_store(file.store, Path(absolute(storage))),
        tracking_uri=tracking_uri(file.tracking_uri),
        text=text,
    )
