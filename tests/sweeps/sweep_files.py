"""A sweep file that is right, to be changed by the tests."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from sweeps.spec import SweepSpec, parse_spec
from trainables.errors import SpecError

GOOD: dict[str, Any] = {
    "name": "good",
    "scenario": "digits/5+5",
    "detector": "gfl_r18_tiny",
    "method": "erd",
    "search": {"lambda_cls": "declared", "alpha_cls": [1.0, 3.0], "lr_scale": [0.5, 2.0]},
}


def text_of(**changes: Any) -> str:
    """The YAML of `GOOD` with other values; a value of None leaves the key out."""
    return yaml.safe_dump({key: value for key, value in {**GOOD, **changes}.items() if value is not None})


def spec_of(**changes: Any) -> SweepSpec:
    """The checked spec of the same."""
    return parse_spec(text_of(**changes), "sweep.yaml")


def problems_of(**changes: Any) -> tuple[str, ...]:
    """The lines that tell what is wrong with it."""
    with pytest.raises(SpecError) as raised:
        spec_of(**changes)
    assert raised.value.subject == "sweep.yaml"
    return raised.value.problems


def the_problem(**changes: Any) -> str:
    """The only such line."""
    (line,) = problems_of(**changes)
    return line
