"""The look of every table in the terminal."""

from __future__ import annotations

from collections.abc import Collection
from textwrap import fill

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from sweeps.terminal import console


class TextTable:
    """A table of texts as they are: rich would take `[old]` in one for markup. It is printed like any rich table.

    Args:
        title: above it.
        columns: their heads.
        words: the columns that are read as words: flush left; numbers are flush right.
        wrapped: the columns that may take several lines.
    """

    def __init__(self, title: str, *columns: str, words: Collection[str] = (), wrapped: Collection[str] = ()) -> None:
        # Rich would break the title where the table ends.
        above = Text(fill(title, console().width, break_on_hyphens=False), no_wrap=True, overflow="ignore")
        self._table = Table(title=above, title_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False)
        for name in columns:
            self._table.add_column(
                Text(name), justify="left" if name in words else "right", no_wrap=name not in wrapped
            )

    def add(self, *cells: str) -> None:
        """A row."""
        self._table.add_row(*map(Text, cells))

    def __rich__(self) -> Table:
        return self._table
