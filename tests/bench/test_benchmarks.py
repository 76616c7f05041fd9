"""Every benchmark loads, says what it takes, and can be found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.__main__ import NAMES, main


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_says_what_it_takes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: python -m tests.bench {name} " in capsys.readouterr().out


def test_every_module_that_can_be_run_has_its_name_in_the_list() -> None:
    modules = Path(__file__).parent.glob("*.py")
    assert {path.stem for path in modules if "\ndef run(options" in path.read_text()} == set(NAMES)


def test_an_unknown_name_is_told_with_all_known_ones() -> None:
    with pytest.raises(SystemExit, match=f"available: {', '.join(NAMES)}"):
        main(["swep"])
