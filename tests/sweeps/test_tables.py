"""Tables as a person reads them."""

from __future__ import annotations

import pytest

from sweeps.tables import TextTable
from sweeps.terminal import console


@pytest.mark.parametrize("columns", ["80", None])
def test_a_title_may_be_wider_than_its_table(
    columns: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    table = TextTable("digits/5+5 in /storage/data/digits-46efae579b166663/[old]", "step", "boxes")
    table.add("1", "139")
    console().print(table)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "digits/5+5 in /storage/data/digits-46efae579b166663/[old]",
        "step boxes",
        "──────────",
        "   1   139",
    ]
