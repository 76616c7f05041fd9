"""What a sweep searches and what it fixes: the parameters of its methods and of its detector's optimisation.

Flat names are `erd/lambda_cls` or `optim/lr_scale`. A sweep file says `lambda_cls`, which is meant for every method of
the sweep that has it, or `erd/lambda_cls`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from search_spaces.distributions import Choice, Distribution, Scalar, narrowed
from search_spaces.params import METHOD, OPTIM, Param, When, inactive, params_of, problems_of
from sweeps.spec_file import choices
from trainables.catalog import DETECTORS, METHODS

DECLARED = "declared"


def preset_values(method: str, preset: str, detector: str) -> dict[str, Scalar]:
    """Every parameter of a trial by flat name: of the preset, and the optimisation's defaults."""
    holders = {method: METHODS[method].presets[preset], OPTIM: DETECTORS[detector].optim()}
    return {
        f"{owner}/{name}": getattr(holders[owner], name)
        for owner, cls in classes([method], detector).items()
        for name in params_of(cls)
    }


def classes(methods: Iterable[str], detector: str) -> dict[str, type]:
    """The parameter classes of a sweep by the first part of their flat names."""
    return {method: METHODS[method].params for method in methods} | {OPTIM: DETECTORS[detector].optim}


def flat_names(methods: Iterable[str], detector: str) -> dict[str, list[str]]:
    """What a sweep file may say, and the flat names that it means."""
    known: dict[str, list[str]] = {}
    for owner, cls in classes(methods, detector).items():
        for name in params_of(cls):
            known.setdefault(name, []).append(f"{owner}/{name}")
            known[f"{owner}/{name}"] = [f"{owner}/{name}"]
    return known


def flat(section: Mapping[str, Any], methods: Iterable[str], detector: str) -> dict[str, Any]:
    """The values of a section by flat name; what names its method comes before what does not."""
    known = flat_names(methods, detector)
    return {name: section[key] for key in sorted(section, key=lambda key: "/" in key) for name in known.get(key, ())}


def space(search: Mapping[str, Any], methods: Iterable[str], detector: str) -> dict[str, Distribution]:
    """What the section `search` asks for, by flat name; first the method, where there are several."""
    methods, params = list(methods), _params(methods, detector)
    choice: dict[str, Distribution] = {METHOD: Choice(tuple(methods))} if len(methods) > 1 else {}
    asked = flat(search, methods, detector)
    # A parameter comes after the one that it depends on, whatever order the file has.
    ordered = sorted(asked, key=lambda name: _parent(name, params[name]) in asked)
    return choice | {name: _distribution(params[name], asked[name]) for name in ordered}


def _parent(name: str, param: Param) -> str | None:
    return f"{name.partition('/')[0]}/{param.when.parent}" if param.when else None


def conditions(space: Mapping[str, Distribution], methods: Iterable[str], detector: str) -> dict[str, list[When]]:
    """Under which values of other searched parameters a searched one acts: all of its `When`s must hold."""
    params, found = _params(methods, detector), {}
    for name in space:
        owner, _, _ = name.partition("/")
        own = [When(METHOD, (owner,))] if METHOD in space and owner not in (METHOD, OPTIM) else []
        param = params.get(name)
        if param and param.when and (parent := _parent(name, param)) in space:
            own.append(When(str(parent), param.when.values))
        if own:
            found[name] = own
    return found


def constants(fixed: Mapping[str, Any], methods: Iterable[str], detector: str) -> dict[str, Scalar]:
    """What the section `fixed` asks for, by flat name."""
    methods = list(methods)
    params = _params(methods, detector)
    return {name: params[name].typed(value) for name, value in flat(fixed, methods, detector).items()}


def parameter_problems(
    search: Mapping[str, Any], fixed: Mapping[str, Any], presets: Mapping[str, str | None], detector: str
) -> list[str]:
    """What is wrong with the sections `search` and `fixed`.

    Args:
        presets: of each method of the sweep; None where it is not known.
    """
    methods = list(presets)
    known = flat_names(methods, detector)
    plain = [name for name in known if "/" not in name]
    who = f"method {methods[0]!r}" if len(methods) == 1 else f"none of the methods {', '.join(methods)}"
    has = "has no such parameter" if len(methods) == 1 else "has such a parameter"
    problems = [
        f"{section}.{name}: {who} on {detector!r} {has}; {choices(name, plain)}"
        for section, names in (("search", search), ("fixed", fixed))
        for name in names
        if name not in known
    ]
    asked, settled = flat(search, methods, detector), flat(fixed, methods, detector)
    problems += [
        f"fixed.{_said(name)}: is searched as well; one of the two must go" for name in settled if name in asked
    ]
    if not search and len(methods) == 1:
        problems.append(f"search: at least one parameter must be searched; available: {', '.join(plain)}")
    for owner, cls in classes(methods, detector).items():
        preset = presets.get(owner)
        chosen = METHODS[owner].presets[preset] if preset else None
        own_search, own_fixed = _own(asked, owner), _own(settled, owner)
        problems += [f"fixed.{line}" for line in problems_of(cls, own_fixed)]
        problems += _range_problems(cls, own_search, chosen)
        if chosen is not None:
            problems += _idle(cls, own_search, own_fixed, chosen)
    return list(dict.fromkeys(problems))


def _own(values: Mapping[str, Any], owner: str) -> dict[str, Any]:
    return {name.removeprefix(f"{owner}/"): value for name, value in values.items() if name.startswith(f"{owner}/")}


def _said(flat_name: str) -> str:
    return flat_name.partition("/")[2]


def _params(methods: Iterable[str], detector: str) -> dict[str, Param]:
    return {
        f"{owner}/{name}": param
        for owner, cls in classes(methods, detector).items()
        for name, param in params_of(cls).items()
    }


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
        for name in inactive(cls, names, settled):
            when = params_of(cls)[name].when
            assert when is not None
            needed, is_now = ", ".join(map(str, when.values)), settled[when.parent]
            yield f"{section}.{name}: acts only with {when.parent}: {needed}, but {when.parent} is {is_now}"
        for name, when in ((name, params_of(cls)[name].when) for name in names):
            if when and isinstance(search.get(when.parent), list) and not set(search[when.parent]) & set(when.values):
                needed, given = ", ".join(map(str, when.values)), ", ".join(map(str, search[when.parent]))
                yield f"{section}.{name}: acts only with {when.parent}: {needed}, but search.{when.parent} has {given}"

    yield from lines("search", search)
    yield from lines("fixed", fixed)
