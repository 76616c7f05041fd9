"""What earlier sweeps found, for a new one to begin with: as observations where they count, else as first guesses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from search_spaces.distributions import Scalar
from search_spaces.params import METHOD
from sweeps.results import EXCESS, Trial, ranked, searched, typed_params
from sweeps.samplers import acting
from sweeps.spec import SweepSpec, stored_spec

NUM_GUESSES = 4
# Where two sweeps agree in all of these, a trial of one is worth the same in the other.
SAME = (
    "data", "detector", "base_epochs", "epochs", "batch_size", "devices", "pretrained", "freeze_base", "ema_momentum",
    "nms", "teachers", "seed", "aim",
)  # fmt: skip


@dataclass(frozen=True)
class Observation:
    """A point of the space, the objectives that it reached, and its excesses over the constraints."""

    point: Mapping[str, Scalar]
    values: list[float]
    excesses: list[float]


@dataclass(frozen=True)
class Known:
    """What a search begins with.

    Attributes:
        guesses: points to try after the presets; the best ones first.
    """

    observations: list[Observation] = field(default_factory=list)
    guesses: list[Mapping[str, Scalar]] = field(default_factory=list)


def known_trials(spec: SweepSpec) -> Known:
    """The finished trials of the sweeps that `spec` names, as far as they lie in its space.

    Trials are observations if their sweep had the same scenario, data, budget, seed and aim and the parameters that are
    not searched agree; of all others the best are guesses.

    Raises:
        SpecError: no such sweep in the storage.
        TrackingError: MLflow does not have it.
    """
    known = Known()
    for name in spec.warm_start:
        other = stored_spec(name, spec.storage)
        same = spec.scenario.steps == other.scenario.steps
        same = same and all(getattr(spec, key) == getattr(other, key) for key in SAME)
        guesses = []
        for trial, values in _finished(other, ranked(other.aim, searched(other.tracking_uri, name))):
            params = typed_params(other, trial.method, trial.params)
            if (point := _point(spec, trial.method, params)) is None:
                continue
            if same and _settled_alike(spec, trial.method, params, point):
                excesses = [trial.ap[EXCESS + one.name] for one in spec.aim.constraints]
                known.observations.append(Observation(point, values, excesses))
            else:
                guesses.append(point)
        known.guesses.extend(guesses[:NUM_GUESSES])
    return known


def _finished(spec: SweepSpec, trials: list[Trial]) -> Iterator[tuple[Trial, list[float]]]:
    for trial in trials:
        if (values := trial.values(spec.aim)) is not None:
            yield trial, values


def _point(spec: SweepSpec, method: str, params: Mapping[str, Any]) -> dict[str, Scalar] | None:
    """The trial in the space of `spec`; None where it lies outside."""
    if method not in spec.methods:
        return None
    values = {METHOD: method, **params}
    point = acting({name: values[name] for name in spec.space if name in values}, spec.conditions)
    inside = all(spec.space[name].problem(name, value) is None for name, value in point.items())
    return point if inside else None


def _settled_alike(spec: SweepSpec, method: str, params: Mapping[str, Any], point: Mapping[str, Scalar]) -> bool:
    settled = spec.all_defaults(method)
    return all(params[name] == value for name, value in settled.items() if name not in spec.space or name not in point)
