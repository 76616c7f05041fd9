"""What a sweep spent, and what it saved by each way of paying once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from sweeps.spec import SweepSpec
from trainables.files import write_json
from trainables.journal import read
from trainables.tune import PROGRESS

HOURS = {"core": "core-hours", "gpu": "GPU-hours"}
"""What people call the hours of a resource."""
TABLES = ("images", "targets", "responses", "latents")
SAVED_BY = ("saved_steps", *(f"saved_{kind}" for kind in TABLES), "saved_stopping")


def hours(spec: SweepSpec, spent_s: float) -> dict[str, float]:
    """Core-hours and GPU-hours of the trials and of the references, and those saved by each mechanism.

    `steps` were in the store already; `images`, `targets`, `responses` and `latents` came from tables (a first pass
    says what each would have cost); `stopping` is the epochs that stopped trials did not train, at the others' pace.

    Args:
        spent_s: seconds of all trials together, also of those that were stopped.
    """
    trials = [read(path) for path in (spec.folder / "trials").glob("*/events.jsonl")]
    facts = [event.get("facts", {}) for trial in trials for event in trial]
    trained = sum(trial[-1][PROGRESS] for trial in trials if trial)
    whole = sum(spec.max_progress for trial in trials if trial)
    told = sum(spec.epochs for fact in facts if fact.get("time_train_s")) or 1
    seconds = {f"saved_{kind}": sum(fact.get(f"time_saved_{kind}_s", 0.0) for fact in facts) for kind in TABLES}
    # A stopped trial saves like the others, but has no facts to tell.
    seconds = {kind: value * trained / told for kind, value in seconds.items()}
    seconds["saved_steps"] = sum(fact.get("time_saved_steps_s", 0.0) for fact in facts)
    seconds["saved_stopping"] = (whole - trained) * spent_s / trained if trained else 0.0
    seconds |= {"saved": sum(seconds.values()), "spent": spent_s, "references": references_s(spec)}
    units = {"core": spec.resources.cpu, "gpu": spec.resources.gpu}
    return {f"{unit}_hours_{what}": s * amount / 3600 for unit, amount in units.items() for what, s in seconds.items()}


def hours_line(spent: Mapping[str, float], unit: str) -> str:
    """`hours` in words."""
    told = {name.removeprefix(f"{unit}_hours_"): f"{value:.2f}" for name, value in spent.items()}
    by = ", ".join(f"{name.removeprefix('saved_')} {told[name]}" for name in SAVED_BY if told[name] != "0.00")
    saved = f"{told['saved']} ({by})" if by else told["saved"]
    return f"{HOURS[unit]}: references {told['references']}, trials {told['spent']}, saved {saved}"


def add_references(spec: SweepSpec, seconds: float) -> None:
    """Note seconds of references that this driver built."""
    write_json(_references_file(spec), references_s(spec) + seconds)


def references_s(spec: SweepSpec) -> float:
    """Seconds of the sweep's references so far, over all its drivers."""
    path = _references_file(spec)
    return float(json.loads(path.read_text())) if path.exists() else 0.0


def _references_file(spec: SweepSpec) -> Path:
    return spec.folder / "references.json"
