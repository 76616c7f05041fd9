"""Ranges: which values a parameter may take, and how they are spaced. The one vocabulary of `Annotated[...]`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

Scalar = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Uniform:
    """Floats from `low` to `high`, both included, on a grid of `step` where one is given."""

    low: float
    high: float
    step: float | None = None

    def __str__(self) -> str:
        return f"{self.low:g} .. {self.high:g}" + (f" step {self.step:g}" if self.step else "")

    def problem(self, name: str, value: object) -> str | None:
        """What is wrong with `value`, or None."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return f"{name} must be a finite number, but got {value!r}"
        if not self.low <= value <= self.high:
            return f"`{self.low:g} <= {name} <= {self.high:g}` must hold, but got ({name}={value})"
        return None


@dataclass(frozen=True, slots=True)
class LogUniform(Uniform):
    """Floats from `low` to `high`, even in the logarithm.

    Zero is outside the range, yet allowed as a fixed value where `zero` says that it switches a term off.
    """

    zero: bool = False

    def __str__(self) -> str:
        return f"{self.low:g} .. {self.high:g} log"

    def problem(self, name: str, value: object) -> str | None:
        """What is wrong with `value`, or None."""
        if self.zero and value == 0 and not isinstance(value, bool):
            return None
        return Uniform.problem(self, name, value)


@dataclass(frozen=True, slots=True)
class IntUniform:
    """Integers from `low` to `high`, both included; even in the logarithm if `log`."""

    low: int
    high: int
    log: bool = False

    def __str__(self) -> str:
        return f"{self.low} .. {self.high}" + " log" * self.log

    def problem(self, name: str, value: object) -> str | None:
        """What is wrong with `value`, or None."""
        if isinstance(value, bool) or not isinstance(value, int):
            return f"{name} must be a whole number, but got {value!r}"
        if not self.low <= value <= self.high:
            return f"`{self.low} <= {name} <= {self.high}` must hold, but got ({name}={value})"
        return None


@dataclass(frozen=True, slots=True)
class Choice:
    """One of `values`."""

    values: tuple[Scalar, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.values))

    def problem(self, name: str, value: object) -> str | None:
        """What is wrong with `value`, or None."""
        if any(value == allowed and isinstance(value, bool) == isinstance(allowed, bool) for allowed in self.values):
            return None
        return f"{name}={value!r} is unknown; available: {', '.join(map(str, self.values))}"


Distribution = Uniform | LogUniform | IntUniform | Choice

BOOL = Choice((False, True))


def narrowed(name: str, declared: Distribution, change: Mapping[str, Any] | list[Any]) -> Distribution:
    """`declared` with the bounds or choices that a sweep file gives instead: narrower, wider or other values.

    Args:
        change: for numbers `{low: ..., high: ..., step: ...}`, or `{values: [...]}` for a few; for choices a list.

    Raises:
        ValueError: bounds upside down, not positive on a logarithmic scale, or choices that do not exist.
    """
    if isinstance(declared, Choice):
        return _chosen(name, declared, change)
    if isinstance(change, list):
        if len(change) != 2:
            raise ValueError(f"{name} takes a range `[low, high]`, but got {change!r}")
        change = {"low": change[0], "high": change[1]}
    if "values" in change:
        return _few(name, declared, change)
    allowed = {"low", "high", "step"} if type(declared) is Uniform else {"low", "high"}
    if unknown := sorted(set(change) - allowed):
        raise ValueError(f"{name} has unknown keys {unknown}; available: {', '.join(sorted(allowed))}, values")
    kind = int if isinstance(declared, IntUniform) else (int, float)
    for key, bound in change.items():
        if isinstance(bound, bool) or not isinstance(bound, kind) or not math.isfinite(bound):
            raise ValueError(f"{name}.{key} must be a finite number of the parameter's type, but got {bound!r}")
    result = replace(declared, **change)
    if not result.low < result.high:
        raise ValueError(f"`low < high` must hold for {name}, but got (low={result.low}, high={result.high})")
    if (isinstance(result, LogUniform) or getattr(result, "log", False)) and result.low <= 0:
        raise ValueError(f"`low > 0` must hold for {name} on a logarithmic scale, but got (low={result.low})")
    if isinstance(result, Uniform) and result.step is not None and result.step <= 0:
        raise ValueError(f"`step > 0` must hold for {name}, but got (step={result.step})")
    return result


def _chosen(name: str, declared: Choice, change: object) -> Choice:
    if not isinstance(change, list) or not change:
        raise ValueError(f"{name} takes a list of its values, but got {change!r}")
    problems = [problem for value in change if (problem := declared.problem(name, value))]
    if problems:
        raise ValueError("; ".join(problems))
    return Choice(tuple(change))


def _few(name: str, declared: Uniform | IntUniform, change: Mapping[str, Any]) -> Choice:
    values = change["values"]
    if set(change) != {"values"} or not isinstance(values, list) or not values:
        raise ValueError(f"{name} takes `values` alone, a list, but got {dict(change)!r}")
    if problems := [problem for value in values if (problem := declared.problem(name, value))]:
        raise ValueError("; ".join(problems))
    return Choice(tuple(values if isinstance(declared, IntUniform) else map(float, values)))
