"""`python -m tests.parity FOLDER`: a line for each oracle file. Exits 1 if one fails, 2 if there is none."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.parity.checkers import verdict


def main(folder: Path) -> int:
    """The exit status, once every oracle file in `folder` has its line."""
    files = sorted(folder.glob("*.npz"))
    if not files:
        what = "holds no oracle file (*.npz)" if folder.is_dir() else "is not a folder"
        print(f"{folder} {what}", file=sys.stderr)
        return 2
    outcomes = []
    for file in files:
        found = verdict(file)
        print(found, flush=True)
        outcomes.append(found.outcome)
    passed, failed, not_built = (outcomes.count(outcome) for outcome in ("pass", "fail", "not built yet"))
    print(f"{passed} passed, {failed} failed, {not_built} not built")
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description="Run every oracle file in a folder.")
    parser.add_argument("folder", type=Path, help="a folder that holds oracle files (*.npz)")
    sys.exit(main(parser.parse_args().folder))
