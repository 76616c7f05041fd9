"""Reading a parameter class: its fields with type, default, range, condition and source; checking and building it."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from search_spaces.distributions import Distribution, Scalar

METHOD, OPTIM = "method", "optim"
"""What the search calls the choice of a method, and the parameters of optimisation beside those of each method."""


@dataclass(frozen=True, slots=True)
class When:
    """A parameter acts only where another has one of these values."""

    parent: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Keeps:
    """A parameter decides which of a teacher's responses a trial needs.

    Those that its `loosest` value needs, `low` or `high`, hold those of every other value; under None each value needs
    its own.
    """

    loosest: Literal["low", "high"] | None = None


@dataclass(frozen=True, slots=True)
class Param:
    """One hyper-parameter as its class declares it. `source` is one line: where it comes from, what it does."""

    name: str
    default: Scalar
    distribution: Distribution
    source: str
    when: When | None = None
    keeps: Keeps | None = None

    def typed(self, value: Scalar) -> Scalar:
        """`value`, or the text that a record has of it, in the declared type: 1 and 1.0 must be one configuration."""
        kind = type(self.default)
        return value in (True, "True") if kind is bool else kind(value)


@cache
def params_of(cls: type) -> dict[str, Param]:
    """The parameters of a class whose fields are `Annotated[type, distribution, "source", When(...)?]`."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: _param(field, hints[field.name].__metadata__) for field in dataclasses.fields(cls)}


def merged(name: str, parts: Sequence[type], without: typing.Container[str] = ()) -> type:
    """A class with the parameters and properties of several; what two of them have is the later's."""
    members = {
        field.name: (field.name, hints[field.name], dataclasses.field(default=field.default))
        for hints, cls in ((typing.get_type_hints(cls, include_extras=True), cls) for cls in parts)
        for field in dataclasses.fields(cls)
        if field.name not in without
    }
    classes = [base for cls in parts for base in reversed(cls.__mro__)]
    own = {key: value for cls in classes for key, value in vars(cls).items() if isinstance(value, property)}
    return dataclasses.make_dataclass(
        name, list(members.values()), namespace=own, frozen=True, kw_only=True, slots=True
    )


def _param(field: dataclasses.Field[Any], metadata: tuple[Any, ...]) -> Param:
    when = next((item for item in metadata if isinstance(item, When)), None)
    keeps = next((item for item in metadata if isinstance(item, Keeps)), None)
    default: Any = field.default
    return Param(field.name, default, metadata[0], metadata[1], when, keeps)


def problems_of(cls: type, values: Mapping[str, object]) -> list[str]:
    """What is wrong with `values` as parameters of `cls`, one line each: unknown names, values outside their range."""
    params = params_of(cls)
    lines = [f"{name}: unknown; available: {', '.join(params)}" for name in values if name not in params]
    for name, value in values.items():
        if name in params and (problem := params[name].distribution.problem(name, value)):
            lines.append(f"{name}: {problem}")
    return lines


def inactive(cls: type, names: typing.Iterable[str], values: Mapping[str, object]) -> list[str]:
    """Of `names`, those that cannot act: their condition fails under `values` (the parents' fixed values)."""
    params = params_of(cls)
    return [
        name
        for name in names
        if (when := params[name].when) and when.parent in values and values[when.parent] not in when.values
    ]


def floor(cls: type, values: Mapping[str, Sequence[Any]]) -> dict[str, Scalar]:
    """The loosest value of each parameter that decides which teacher responses are needed, and acts.

    Args:
        values: of each parameter, all that trials may take, or the ends of its range.

    Raises:
        ValueError: a parameter takes several values of which none is the loosest.
    """
    loosest: dict[str, Scalar] = {}
    for name, param in params_of(cls).items():
        if param.keeps is None or not _may_act(param, values):
            continue
        chosen = _loosest(param, values[name])
        if len(chosen) > 1:
            raise ValueError(f"the search varies {name}, and each of its values needs other responses")
        (loosest[name],) = chosen
    return loosest


def _loosest(param: Param, values: Sequence[Any]) -> list[Any]:
    ends = {"low": min, "high": max}
    kind = param.keeps.loosest if param.keeps else None
    return [ends[kind](values)] if kind else sorted(set(values))


def _may_act(param: Param, values: Mapping[str, Sequence[Any]]) -> bool:
    return param.when is None or any(value in param.when.values for value in values[param.when.parent])


def covers(cls: type, loosest: Mapping[str, Scalar], values: Mapping[str, Scalar]) -> bool:
    """Whether the responses kept for the `floor` `loosest` hold those that a trial with `values` needs."""
    own, params = floor(cls, {name: [value] for name, value in values.items()}), params_of(cls)

    def holds(name: str) -> bool:
        return _loosest(params[name], [own[name], loosest[name]]) == [loosest[name]]

    return own.keys() == loosest.keys() and all(map(holds, own))


def table(cls: type) -> list[tuple[str, str, str, str]]:
    """Rows (name, default, range, source) for people."""
    return [
        (param.name, f"{param.default:g}" if isinstance(param.default, float) else str(param.default),
         str(param.distribution), param.source)
        for param in params_of(cls).values()
    ]  # fmt: skip
