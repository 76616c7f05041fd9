"""What all verbs print with. On a terminal lines break between words; in a file they are never broken or cut."""

from __future__ import annotations

import os
from textwrap import fill

from rich.console import Console

UNBOUNDED = 10_000
"""Columns of a file or a pipe, whatever the terminal has that it was started from."""


def console(stderr: bool = False) -> Console:
    """Standard output, or standard error. `COLUMNS` and `NO_COLOR` are obeyed."""
    out = Console(stderr=stderr, highlight=False)
    if not on_terminal(out) and "COLUMNS" not in os.environ:
        out.width = UNBOUNDED
    return out


def on_terminal(out: Console) -> bool:
    """Whether a person sees it as it is written; `FORCE_COLOR` makes no terminal of a file."""
    return out.is_interactive and out.file.isatty()


def say(out: Console, text: str) -> None:
    """Print lines as they are, without markup."""
    if on_terminal(out):
        text = "\n".join(_wrapped(line, out.width) for line in text.split("\n"))
    out.print(text, markup=False, soft_wrap=True)


def _wrapped(line: str, width: int) -> str:
    """A line in lines; paths stay whole, to be copied."""
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
