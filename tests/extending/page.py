"""What `docs/extending.md` shows, and a clone in which it was done."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"`(\S+\.py)`[^`\n]*:\n\n```python\n(.*?)```", PAGE, re.DOTALL))
"""The files, by where the page puts them."""
DIFFS = re.findall(r"```diff\n--- (\S+)\n(.*?)```", PAGE, re.DOTALL)
(YAML,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def extended(clone: Path) -> Path:
    """`clone`, made of our packages, with the files and the lines of the page."""
    for package in ("search_spaces", "trainables", "sweeps"):
        shutil.copytree(ROOT / package, clone / package, ignore=shutil.ignore_patterns("__pycache__"))
    for path, text in FILES.items():
        (clone / path).write_text(text, encoding="utf-8")
    for path, diff in DIFFS:
        text = (clone / path).read_text(encoding="utf-8")
        (clone / path).write_text(_with_lines(text, diff), encoding="utf-8")
    return clone


def _with_lines(text: str, diff: str) -> str:
    """`text` with the lines that begin with `+`, each after the one above it."""
    above = ""
    for line in diff.splitlines(keepends=True):
        if line.startswith("+"):
            text = text.replace(above, above + line[1:])
            above += line[1:]
        else:
            above = line[1:]
            assert text.count(above) == 1, f"the page must show lines that are there, but shows {above!r}"
    return text
