"""`python -m tests.bench NAME [options]`: run one benchmark; each says with `--help` what it takes."""

from __future__ import annotations

import importlib
import json
import os
import sys

# One thread for each process, as a trial on one core has; read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

NAMES = (
    "ckd",
    "cluster",
    "defaults",
    "evaluation",
    "iteration",
    "latent",
    "methods",
    "nms",
    "responses",
    "scale",
    "search",
    "start",
    "sweep",
    "tracking",
    "variants",
)


def main(arguments: list[str]) -> None:
    """Run the benchmark that the first argument names; the last line printed is its result as JSON."""
    name, *options = arguments or [""]
    if name not in NAMES:
        raise SystemExit(f"usage: python -m tests.bench NAME [options]; available: {', '.join(NAMES)}")
    result = importlib.import_module(f"tests.bench.{name}").run(options)
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
