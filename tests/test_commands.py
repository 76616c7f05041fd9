"""Every command that README, docs and the help show is one: its verb or module, its options, its files."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
import tomllib

import click
import pytest

from sweeps.cli import main
from tests.bench.__main__ import NAMES
from tests.pages import PAGES, ROOT, TEXT, shown_commands

PLACES = {"DAYS": "1", "N": "1", "NAME": "nms"}
"""What a page writes in place of a value, and one that is allowed there."""
SHOWN = {command: whole for page in PAGES for command, whole in shown_commands(page).items()}
SHOWN |= {str(verb.epilog).removeprefix("Example: "): True for verb in main.commands.values()}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def of(program: str) -> list[tuple[list[str], bool]]:
    """The words of each command of `program`, and whether it is told whole."""
    words = [([PLACES.get(word, word) for word in shlex.split(command)], whole) for command, whole in SHOWN.items()]
    return [(own, whole) for own, whole in words if own[0].partition(".")[0] == program]


def test_pages_show_commands_of_each_program() -> None:
    assert len(of("sweeps")) > 2 * len(main.commands)  # each once in its help
    assert len(of("pytest")) >= 5
    assert {module for (module, *_), _ in of("tests")} == {"tests.bench", "tests.chaos", "tests.parity"}


@pytest.mark.parametrize(("words", "whole"), of("sweeps"), ids=[" ".join(words) for words, _ in of("sweeps")])
def test_sweeps_takes_what_is_shown(words: list[str], whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    _, name, *rest = words
    for param in main.commands[name].params:
        if isinstance(param.type, click.Path):
            monkeypatch.setattr(param.type, "exists", False)  # of somebody else
    try:
        main.commands[name].make_context(name, rest)
    except click.MissingParameter:
        assert not whole


@pytest.mark.parametrize("words", [words for words, _ in of("tests")], ids=" ".join)
def test_a_module_takes_what_is_shown(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [*words, "--help"])
    monkeypatch.delitem(sys.modules, f"{words[0]}.__main__", raising=False)  # runpy warns of a module that was loaded
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(words[0], run_name="__main__")
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert [word for word in words if word.startswith("--") and word not in told] == []


@pytest.mark.parametrize("words", [words for words, _ in of("pytest")], ids=" ".join)
def test_pytest_knows_what_is_shown(words: list[str]) -> None:
    marks = {mark.partition(":")[0] for mark in PYPROJECT["tool"]["pytest"]["ini_options"]["markers"]}
    given = iter(words[1:])
    for word in given:
        if word == "-m":
            assert set(next(given).split()) <= marks | {"not", "and", "or"}
        else:
            assert (ROOT / word).exists(), word


def test_every_benchmark_is_told_and_no_other() -> None:
    (row,) = re.findall(r"^\| `uv run python -m tests\.bench NAME` \|(.*)\|$", TEXT, re.MULTILINE)
    assert set(re.findall(r"`([a-z]+)`", row)) == set(NAMES)


def test_an_extra_that_is_shown_exists() -> None:
    told = set(re.findall(r"--extra (\w+)", TEXT))
    assert told
    assert told <= set(PYPROJECT["project"]["optional-dependencies"])


def test_every_verb_is_run_by_a_test() -> None:
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").glob("s*/test_*.py"))
    assert set(main.commands) - set(re.findall(r'\b(?:run|running|sweeps)\((?:tmp_path, )?"(\w+)"', tests)) == set()
