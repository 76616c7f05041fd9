"""`python -m tests.chaos`: every fault at every moment of a small sweep, against one that nothing disturbs.

Survived is a sweep that ends, gone on with where need be, with no trial lost or doubled, one run for each trial and
step, no run left open, a store in order, and the numbers of the undisturbed sweep to the last bit. Two faults mount
file systems and need root. The last line is JSON with `survived` and `total`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.chaos.box import Box
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.moments import MOMENTS, wait_for

PATIENCE_S = 600.0


def main() -> None:
    """Run the matrix, or the part of it that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--fault", action="append", choices=FAULTS, help="these alone")
    parser.add_argument("--moment", action="append", choices=MOMENTS, help="these alone")
    given, console = parser.parse_args(), Console()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    faults, moments = given.fault or list(FAULTS), given.moment or list(MOMENTS)
    cells: dict[tuple[str, str], str] = {}
    with tempfile.TemporaryDirectory(prefix="chaos") as folder:
        wanted = {moment == "promotion" for moment in moments}
        calm = {promoted: undisturbed(Path(folder) / f"calm {promoted}", promoted) for promoted in wanted}
        for fault in faults:
            for moment in moments:
                where = Path(folder) / f"{len(cells)}"
                cells[fault, moment] = survived(where, FAULTS[fault], moment, *calm[moment == "promotion"])
                console.print(f"{fault}, {moment}: {cells[fault, moment]}", markup=False)
    table = Table(title="seconds lost, where a sweep survived")
    for column in ("", *moments):
        table.add_column(column)
    for fault in faults:
        table.add_row(fault, *(cells[fault, moment] for moment in moments))
    console.print(table)
    print(json.dumps({"survived": sum(map(_is_number, cells.values())), "total": len(cells)}), flush=True)


def undisturbed(folder: Path, promoted: bool) -> tuple[dict[str, Any], float]:
    """What a sweep comes to that nothing disturbs, and in how many seconds it, or its promotion, does."""
    box = Box(folder)
    verbs, began = ["run", *(["promote"] if promoted else [])], time.monotonic()
    for verb in verbs:
        began = time.monotonic()
        box.run(verb)
    return box.outcome(promoted), time.monotonic() - began


def survived(folder: Path, kind: type[Fault], moment: str, expected: dict[str, Any], calm_s: float) -> str:
    """The seconds that a fault costs, or why the sweep did not survive it."""
    box, promoted = Box(folder), moment == "promotion"
    fault: Fault | None = None
    try:
        fault = kind(box)
        if promoted:
            box.run("run")
        began, verb = time.monotonic(), "promote" if promoted else "run"
        with box.running(verb) as process:
            wait_for(moment, folder, process)
            fault.strike(process)
            fault.mend()
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE_S)
        if process.returncode != 0:
            box.run(verb)
        box.run("sync")
        lost = time.monotonic() - began - calm_s
        assert box.outcome(promoted) == expected, "it has other numbers"
    except Exception as error:
        print(box.printed[-3000:], flush=True)
        return f"not survived: {type(error).__name__}: {str(error).strip()[-200:]}"
    finally:
        if fault:
            fault.end()
    return f"{max(lost, 0):.0f}"


def _is_number(cell: str) -> bool:
    return cell.isdigit()


if __name__ == "__main__":
    main()
