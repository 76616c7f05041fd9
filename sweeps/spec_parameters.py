"""What a sweep searches and what it fixes: the parameters of its method and of its detector's optimisation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from search_spaces.distributions import Distribution, Scalar, narrowed
from search_spaces.params import inactive, params_of, problems_of
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
    """What the section `search` asks for, under flat names."""
    declared = {
        n: param.distribution for cls in _classes(method, detector).values() for n, param in params_of(cls).items()
    }
    flat = flat_names(method, detector)
    return {flat[name]: _distribution(name, declared[name], change) for name, change in search.items()}


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
    for cls in _classes(method, detector).values():
        own = {name: value for name, value in fixed.items() if name in params_of(cls)}
        problems += [f"fixed.{line}" for line in problems_of(cls, own)]
        problems += _range_problems(cls, search)
    if preset is not None:
        problems += _idle(METHODS[method].params, search, fixed, METHODS[method].presets[preset])
    return problems


def _classes(method: str, detector: str) -> dict[str, type]:
    return {"method": METHODS[method].params, "optim": DETECTORS[detector].optim}


def _distribution(name: str, declared: Distribution, change: Any) -> Distribution:
    if change == DECLARED:
        return declared
    if not isinstance(change, list | dict):
        raise ValueError(f"takes `{DECLARED}`, a range or a list, but got {change!r}; a single value goes to `fixed`")
    return narrowed(name, declared, change)


def _range_problems(cls: type, search: Mapping[str, Any]) -> Iterator[str]:
    for name, param in params_of(cls).items():
        try:
            _distribution(name, param.distribution, search.get(name, DECLARED))
        except (ValueError, TypeError) as error:
            yield f"search.{name}: {error}"


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
