"""README and docs say what is: parameters, verbs, files, sweep files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from search_spaces.params import table
from sweeps.cli import main
from sweeps.spec import parse_spec
from tests.pages import PAGES, TEXT
from tests.sweeps.sweep_files import text_of
from trainables.catalog import DETECTORS, METHODS
from trainables.scenarios import NAMED

ALONE = {name: method for name, method in METHODS.items() if "-" not in name}
FILES: list[dict[str, Any]] = [
    content for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL) if (content := yaml.safe_load(block))
]
KEYS = next(content for content in FILES if "report_on" in content)  # one of each, not meant together


@pytest.mark.parametrize(
    "cls", [*(method.params for method in ALONE.values()), *{detector.optim for detector in DETECTORS.values()}]
)
def test_every_parameter_is_told_as_its_class_declares_it(cls: type) -> None:
    rows = table(cls)
    assert rows
    for name, default, values, source in rows:
        assert f"| `{name}` | {default} | {values} | {source} |" in TEXT


def test_every_verb_detector_and_method_is_told() -> None:
    assert {f"`sweeps {name}" for name in main.commands} <= set(re.findall(r"`sweeps \w+", TEXT))
    for name in [*DETECTORS, *ALONE]:
        assert f"`{name}`" in TEXT


def test_every_preset_is_told() -> None:
    for name, method in ALONE.items():
        row = re.search(rf"^\| `{name}` \|[^|]*\|([^|]*)\|$", TEXT, re.MULTILINE)
        assert row, name
        assert [preset for preset in method.presets if f"`{preset}`" not in row[1]] == []


def test_every_scenario_of_several_steps_is_told() -> None:
    told = TEXT.partition("Scenarios:")[2].partition("Detectors:")[0]
    for name in NAMED:
        split = name.partition("/")[2]
        if "+" in split:
            assert re.search(rf"[`/]{re.escape(split)}`", told), name


@pytest.mark.parametrize("content", [one for one in FILES if one is not KEYS], ids=lambda content: ", ".join(content))
def test_every_sweep_file_shown_is_one(content: dict[str, Any]) -> None:
    parse_spec(text_of(**content), "shown", check_files=False)


@pytest.mark.parametrize("key", KEYS)
def test_every_key_shown_is_one(key: str) -> None:
    beside: dict[str, Any] = {"method": ["erd", "lwf"], "search": {}} if key == "each_method" else {}
    parse_spec(text_of(**beside, **{key: KEYS[key]}), "shown", check_files=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not link.startswith("http") and not (page.parent / link).exists()] == []


def test_every_page_is_linked_from_the_readme() -> None:
    readme = PAGES[0].read_text(encoding="utf-8")
    assert [page.name for page in PAGES[1:] if f"](docs/{page.name})" not in readme] == []
