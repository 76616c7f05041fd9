"""The checker of each family of oracle files, and what it says of one file."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal

import numpy as np

from tests.parity.comparison import Checker

CHECKERS = {  # how a file's name begins: the module whose `check` is its Checker; the longest match counts
    "cl_metrics": "tests.parity.cl_metrics",
    "coco_ap": "tests.parity.coco_ap",
    "erd": "tests.parity.erd",
    "ilyolox": "tests.parity.ilyolox",
    "ld": "tests.parity.ld",
    "nanodet_dsla": "tests.parity.nanodet_head",
    "nanodet_head": "tests.parity.nanodet_head",
    "nanodet_qfl": "tests.parity.nanodet_head",
    "nanodet_steps": "tests.parity.nanodet_steps",
}


@dataclass(frozen=True)
class Verdict:
    """What became of one oracle file."""

    name: str
    outcome: Literal["pass", "fail", "not built yet"]
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.name:<32} {self.outcome:<14} {self.detail}".rstrip()


def checker_of(name: str) -> Checker | None:
    """The checker of the oracle file called `name`, or None if its family is not built yet."""
    prefixes = [prefix for prefix in CHECKERS if name == prefix or name.startswith(f"{prefix}_")]
    if not prefixes:
        return None
    checker: Checker = import_module(CHECKERS[max(prefixes, key=len)]).check
    return checker


def verdict(path: Path) -> Verdict:
    """The verdict on one oracle file; an error on the way is a failure with its message."""
    try:
        checker = checker_of(path.stem)
        if checker is None:
            return Verdict(path.stem, "not built yet")
        with np.load(path, allow_pickle=False) as file:
            comparison = checker(dict(file))
    except Exception as error:
        message = " ".join(str(error).split())
        return Verdict(path.stem, "fail", f"{type(error).__name__}: {message}")
    if comparison.problems:
        return Verdict(path.stem, "fail", "; ".join(comparison.problems))
    worst = max(comparison.pairs, key=lambda pair: (pair.share, pair.allowed))
    largest = f"largest difference {worst.difference:.1e}, {worst.allowed:.1e} allowed ({worst.name})"
    return Verdict(path.stem, "pass", f"{largest}, {len(comparison.pairs)} arrays")
