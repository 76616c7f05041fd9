"""README and docs, and the command lines that they show."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"(?:uv run )?(?:python -m )?(sweeps .+|(?:pytest|tests(?:\.\w+)+)(?: .*)?)$")


def shown_commands(page: Path) -> dict[str, bool]:
    """Command lines of `sweeps`, `pytest` and `python -m`, and whether each is told with all that it needs: in a block,
    or at the head of a table's row. What is in brackets counts as given.
    """
    text = page.read_text(encoding="utf-8")
    blocks = [block.replace("\\\n", " ") for language, block in BLOCK.findall(text) if not language]
    prose = BLOCK.sub("", text)
    whole = [line for block in blocks for line in block.splitlines()]
    whole += re.findall(r"^\| `([^`]+)` \|", prose, re.MULTILINE)
    named = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    return _commands(named, False) | _commands(whole, True)


def _commands(lines: list[str], whole: bool) -> dict[str, bool]:
    parts = [part.partition(" #")[0].strip() for line in lines for part in re.split(r"&&|;| -- ", line)]
    return {re.sub(r"[\[\]]", "", found[1]): whole for part in parts if (found := COMMAND.match(part))}
