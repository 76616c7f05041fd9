"""Pairs of computed and expected arrays, and how far apart they may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Oracle = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Tolerance:
    """Allows `atol + rtol * |expected|` at each element; nan equals nan."""

    rtol: float = 0.0
    atol: float = 0.0


EXACT = Tolerance()  # indices, masks, labels
LOSS = Tolerance(rtol=1e-5)  # float32
GRADIENT = Tolerance(rtol=1e-4, atol=1e-7)
BOX_GRADIENT = Tolerance(rtol=1e-3, atol=1e-5)  # through the exponential of a box decoder
BOXES = Tolerance(atol=1e-3)  # pixels
FIGURES = Tolerance(atol=1e-12)  # float64 metrics, COCO's statistics


@dataclass(frozen=True)
class Pair:
    """One compared array.

    Attributes:
        difference, allowed: at the element that comes nearest to its tolerance, or exceeds it most.
        problem: what is wrong with it, empty if nothing is.
    """

    name: str
    difference: float
    allowed: float
    problem: str = ""

    @property
    def share(self) -> float:
        """The difference as a share of what is allowed; above 1 is too much."""
        if self.problem:
            return np.inf
        return self.difference / self.allowed if self.difference else 0.0


class Comparison:
    """What a checker found on one oracle file."""

    def __init__(self, oracle: Oracle) -> None:
        self.pairs: list[Pair] = []
        self._oracle = oracle
        self._looked_at: set[str] = set()

    def compare(self, name: str, got: Any, tolerance: Tolerance, expected: Any = None) -> None:
        """Compare `got` (anything that makes an array) with the oracle's array `name`, or with `expected` if given."""
        self._looked_at.add(name)
        expected = self._oracle[name] if expected is None else expected
        self.pairs.append(_compared(name, np.asarray(got), np.asarray(expected), tolerance))

    def ignore(self, name: str, reason: str) -> None:
        """Leave the oracle's array `name` out, because of `reason`."""
        if not reason:
            raise ValueError(f"{name} is left out without a reason")
        self._looked_at.add(name)

    @property
    def unlooked(self) -> list[str]:
        """The expected arrays that were neither compared nor left out."""
        return sorted(name for name in self._oracle if name.startswith("exp_") and name not in self._looked_at)

    @property
    def problems(self) -> list[str]:
        """Why this file fails; empty if it passes."""
        found = [f"{pair.name} {pair.problem}" for pair in self.pairs if pair.problem]
        if self.unlooked:
            found.append(f"not compared: {', '.join(self.unlooked)}")
        if not self.pairs:
            found.append("nothing was compared")
        return found


Checker = Callable[[Oracle], Comparison]


def _compared(name: str, got: npt.NDArray[Any], expected: npt.NDArray[Any], tolerance: Tolerance) -> Pair:
    if got.shape != expected.shape:
        return Pair(name, np.inf, 0.0, f"has shape {got.shape} instead of {expected.shape}")
    if not got.size:
        return Pair(name, 0.0, tolerance.atol)
    got, expected = got.astype(np.float64), expected.astype(np.float64)
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(got - expected))
    difference[np.isnan(difference)] = np.inf
    allowed = tolerance.atol + tolerance.rtol * np.nan_to_num(np.abs(expected))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(difference == 0, 0.0, difference / allowed)
    worst = np.unravel_index(np.argmax(share), share.shape)
    too_far = int((share > 1).sum())
    problem = f"differs by {difference[worst]:.1e}, {allowed[worst]:.1e} allowed ({too_far} of {got.size} values)"
    return Pair(name, float(difference[worst]), float(allowed[worst]), problem if too_far else "")
