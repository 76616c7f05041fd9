"""What the page of a sweep's run says first: result, best trial, and the commands to go on with, as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sweeps.findings import Findings
from sweeps.leaderboard import Board, called, final_board, lead, leaderboard
from sweeps.show import failures, parameters

MAX_FAILURES = 5


def description(found: Findings) -> str:
    """The text."""
    return "\n\n".join(_parts(found))


def _parts(found: Findings) -> Iterator[str]:
    if found.finished:  # first, as MLflow folds what comes after some lines
        best = found.finished[0]
        given = {name: best.params[name] for name in found.spec.space if name in best.params}
        aim, trial, values = map(escaped, (found.spec.objective.name, called(found, best), parameters(given)))
        yield f"**Best by {aim}: {trial}**, {values}"
    yield escaped(lead(found))
    yield _table(leaderboard(found))
    for scenario, rows in (found.result or {}).items():
        yield f"**On the test split of {escaped(scenario)}**"
        yield _table(final_board(rows))
    yield from (escaped(line) for line in failures(found.trials)[:MAX_FAILURES])
    yield "\n".join(f"- `{command}`: {what}" for command, what in _commands(found))


def _commands(found: Findings) -> Iterator[tuple[str, str]]:
    name = found.spec.name
    if found.tags.get("verdict") == "stopped":
        yield "sweeps run FILE --resume", "goes on where it was interrupted"
    yield f"sweeps show {name}", "all trials, best first"
    yield f"sweeps report {name}", "one page with pictures; it lies among the artifacts of this run as well"
    yield f"sweeps promote {name}", "trains the best under several seeds, scores it on the test split, registers it"


def _table(board: Board) -> str:
    head, *rows = ([escaped(cell) for cell in row] for row in (board.head, *board.rows))
    ruler = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ruler, *rows))


def escaped(text: str) -> str:
    """`text` as Markdown shows it."""
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", text).replace("<", "&lt;")
