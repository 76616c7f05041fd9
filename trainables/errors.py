"""Errors that a person can act on.

PalimpsestError
|-- SpecError        the sweep file
|-- DataError        annotations, images, scenarios that the data cannot serve
|-- CheckpointError  weights or states: missing, torn, of another configuration
`-- TrainingError    a trial that cannot go on, such as a loss that is not finite
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_LINES = 20

_PASSWORD = re.compile(r"(://[^\s:/@'\"]*:)[^\s'\"]+(?=@)|([?&]password=)[^\s'\"&]+")


def masked(text: str) -> str:
    """`text` with `***` for each password in an address."""
    return _PASSWORD.sub(r"\1\2***", text)


def in_a_line(error: BaseException) -> str:
    """The beginning of an error's message in one line, passwords in addresses masked."""
    return masked(" ".join(str(error).split()))[:300]


def one_line(error: BaseException) -> str:
    """The kind of an error before what `in_a_line` says."""
    return f"{type(error).__name__}: {in_a_line(error)}"


def capped(lines: Iterable[str], most: int = MAX_LINES) -> list[str]:
    """The first `most` lines, and one with the number of the others."""
    every = list(lines)
    return every[:most] + [f"... and {len(every) - most} more"] * (len(every) > most)


class PalimpsestError(Exception):
    """What is wrong with `subject`, all at once; passwords in addresses are masked.

    Args:
        subject: the file or thing at fault, as the person knows it.
        problems: one line each: where, what must hold, what was given, what is allowed.
    """

    def __init__(self, subject: str, problems: Iterable[str]) -> None:
        self.subject = masked(subject)
        self.problems = tuple(map(masked, problems))
        super().__init__(self.subject, self.problems)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return f"{self.subject}: {self.problems[0]}"
        lines = "".join(f"\n  {problem}" for problem in self.problems)
        return f"{self.subject}: {len(self.problems)} errors{lines}"


class SpecError(PalimpsestError):
    """The sweep file cannot be used."""


class DataError(PalimpsestError):
    """Annotations or images cannot be used."""


class CheckpointError(PalimpsestError):
    """Weights or a saved state are missing, torn or of another configuration."""


class TrainingError(PalimpsestError):
    """A trial cannot go on; other trials can."""
