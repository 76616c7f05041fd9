"""The README says what is: its parameter table, its verbs, its files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from search_spaces.params import table
from sweeps.cli import main
from trainables.catalog import DETECTORS, METHODS
from trainables.scenarios import NAMED

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


ALONE = {name: method for name, method in METHODS.items() if "-" not in name}


@pytest.mark.parametrize(
    "cls", [*(method.params for method in ALONE.values()), *{detector.optim for detector in DETECTORS.values()}]
)
def test_every_parameter_is_told_as_its_class_declares_it(cls: type) -> None:
    rows = table(cls)
    assert rows
    for name, default, values, source in rows:
        assert f"| `{name}` | {default} | {values} | {source} |" in README


def test_every_verb_detector_and_method_is_told() -> None:
    assert {f"`sweeps {name}" for name in main.commands} <= set(re.findall(r"`sweeps \w+", README))
    for name in [*DETECTORS, *ALONE]:
        assert f"`{name}`" in README


def test_every_scenario_of_several_steps_is_told() -> None:
    told = README.partition("Scenarios:")[2].partition("Detectors:")[0]
    for name in NAMED:
        split = name.partition("/")[2]
        if "+" in split:
            assert re.search(rf"[`/]{re.escape(split)}`", told), name


def test_every_link_leads_to_a_file() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
