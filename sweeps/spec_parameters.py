"""What a sweep searches and what it fixes: the parameters of its method and of its detector's optimisation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from search_spaces.distributions import Choice, Distribution, Scalar, narrowed
from search_spaces.params import Param, inactive, params_of, problems_of
from sweeps.spec_file import choices
from trainables.catalog import DETECTORS, METHODS

DECLARED = "declared"


def preset_values(method: str, preset: str, detector: str) -> dict[str, Scalar]:
    """Every parameter by flat name, `method/...` or `optim/...`: of the preset, and the optimisation's defaults."""
    holders = {"method": METHODS[method].presets[preset], "optim": DETECTORS[detector].optim()}
    return {
        f"{prefix}/{name}": getattr(holders[prefix], name)
        for prefix, cls in _classes(method, detector).items()
        for name in params_of(cls)
    }


def flat_names(method: str, detector: str) -> dict[str, str]:
    """The flat name of every parameter that a sweep file may name."""
    return {name: f"{prefix}/{name}" for prefix, cls in _classes(method, detector).items() for name in params_of(cls)}


def space(search: Mapping[str, Any], method: str, detector: str) -> dict[str, Distribution]:
    """What the section `search` asks for, by flat name."""
    flat, params = flat_names(method, detector), _params(method, detector)
    return {flat[name]: _distribution(params[name], change) for name, change in search.items()}


def constants(fixed: Mapping[str, Any], method: str, detector: str) -> dict[str, Scalar]:
    """What the section `fixed` asks for, by flat name. `2` for a float is `2.0`: the same number has one identity."""
    flat, params = flat_names(method, detector), _params(method, detector)
    return {
        flat[name]: float(value) if isinstance(params[name].default, float) else value for name, value in fixed.items()
    }


def parameter_problems(
    search: Mapping[str, Any], fixed: Mapping[str, Any], method: str, preset: str | None, detector: str
) -> list[str]:
    """What is wrong with the sections `search` and `fixed`; `preset` is None where it is not known."""
    known = flat_names(method, detector)
    problems = [
        f"{section}.{name}: method {method!r} on {detector!r} has no such parameter; {choices(name, known)}"
        for section, names in (("search", search), ("fixed", fixed))
        for name in names
        if name not in known
    ]
    problems += [f"fixed.{name}: is searched as well; one of the two must go" for name in fixed if name in search]
    if not search:
        problems.append(f"search: at least one parameter must be searched; available: {', '.join(known)}")
    chosen = METHODS[method].presets[preset] if preset else None
    for cls in _classes(method, detector).values():
        own = {name: value for name, value in fixed.items() if name in params_of(cls)}
        problems += [f"fixed.{line}" for line in problems_of(cls, own)]
        problems += _range_problems(cls, search, chosen)
    if chosen is not None:
        problems += _idle(METHODS[method].params, search, fixed, chosen)
    return problems


def _classes(method: str, detector: str) -> dict[str, type]:
    return {"method": METHODS[method].params, "optim": DETECTORS[detector].optim}


def _params(method: str, detector: str) -> dict[str, Param]:
    return {name: param for cls in _classes(method, detector).values() for name, param in params_of(cls).items()}


def _distribution(param: Param, change: Any) -> Distribution:
    if change == DECLARED:
        return param.distribution
    if not isinstance(change, list | dict):
        raise ValueError(f"takes `{DECLARED}`, a range or a list, but got {change!r}; a single value goes to `fixed`")
    return narrowed(param.name, param.distribution, change)


def _range_problems(cls: type, search: Mapping[str, Any], preset: Any) -> Iterator[str]:
    for name, param in params_of(cls).items():
        try:
            chosen = _distribution(param, search.get(name, DECLARED))
        except (ValueError, TypeError) as error:
            yield f"search.{name}: {error}"
            continue
        # A number outside its range can be suggested, a choice that is none cannot.
        value = getattr(preset, name, None)
        if isinstance(chosen, Choice) and value is not None and value not in chosen.values:
            given = ", ".join(map(str, chosen.values))
            yield f"search.{name}: the preset's {value} must be among the choices, for trial 0, but got {given}"


def _idle(cls: type, search: Mapping[str, Any], fixed: Mapping[str, Any], preset: Any) -> Iterator[str]:
    """Lines on parameters that are given and would change nothing."""
    settled = {name: fixed.get(name, getattr(preset, name)) for name in params_of(cls) if name not in search}

    def lines(section: str, names: Iterable[str]) -> Iterator[str]:
        for name in inactive(cls, [name for name in names if name in params_of(cls)], settled):
            when = params_of(cls)[name].when
            assert when is not None
            needed, is_now = ", ".join(map(str, when.values)), settled[when.parent]
            yield f"{section}.{name}: acts only with {when.parent}: {needed}, but {when.parent} is {is_now}"

    yield from lines("search", search)
    yield from lines("fixed", fixed)
