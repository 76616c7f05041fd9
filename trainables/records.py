"""What the store holds of a chain's steps, and from their class APs its metrics; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainables.config import Runtime, TrialConfig
from trainables.files import read_json
from trainables.metrics import KINDS, FloatArray, chain_summary, summarize
from trainables.store import Store
from trainables.voc_evaluation import MEANS as VOC_MEANS

WEIGHTS_FILE, FACTS_FILE = "weights.pt", "facts.json"
"""Of a step that is done; a table has its facts too."""
AP_FILE, PICTURE_FILE = "ap.json", "boxes.jpg"
"""Of a score; for the picture see `trainables.pictures`."""
STATE_FILE, PROGRESS_FILE = "state.pt", "progress.json"
"""Of a step under way: all that the rest of it depends on; epochs `done`, `of` how many, seconds `left_s`."""

ClassAP = dict[str, list[float | None]]
"""For each of `KINDS`, AP of every class seen so far in label order; None where a class has no ground truth.

On VOC's images also VOC's columns (`trainables.voc_evaluation.columns`).
"""


def partial_step(config: TrialConfig, runtime: Runtime, step: int = -1) -> Path:
    """The folder of `step`, or of the last one, while it is trained: its state and its progress."""
    return Store(runtime.store).partial("steps", config.step_identity(step % len(config.scenario.steps)))


def score_identity(config: TrialConfig, runtime: Runtime, step: int) -> dict[str, Any]:
    """What the AP of `step` on the runtime's split depends on."""
    identity = {"step": config.step_identity(step), "annotations": runtime.scored.digest, "images": "full"}
    return identity | ({"nms": dict(config.nms)} if config.nms else {})


def known_score(config: TrialConfig, runtime: Runtime, step: int) -> ClassAP:
    """The AP of `step` that the store already holds; empty if it does not."""
    folder = Store(runtime.store).find("scores", score_identity(config, runtime, step))
    return read_json(folder / AP_FILE) if folder else {}


def known_picture(store: Path | str, identity: Mapping[str, Any]) -> Path | None:
    """The picture beside the score with `identity`; None if the store does not hold it."""
    folder = Store(store).find("scores", identity)
    path = folder / PICTURE_FILE if folder else None
    return path if path and path.exists() else None


def known_joint_ap(config: TrialConfig, runtime: Runtime) -> dict[str, FloatArray]:
    """For each of `KINDS`, AP (T, C) of the reference models that the store already holds; nan elsewhere.

    A scenario of one step has none: it would be what trials train.
    """
    if config.first_step == 0:
        return matrices([{}], len(config.scenario.class_names))
    steps = range(len(config.scenario.steps))
    return matrices([known_score(config.joint(step), runtime, 0) for step in steps], len(config.scenario.class_names))


def matrices(rows: Sequence[ClassAP], num_classes: int) -> dict[str, FloatArray]:
    """For each of `KINDS`, AP (T, C), nan where there is none."""
    result = {kind: np.full((len(rows), num_classes), np.nan) for kind in KINDS}
    for t, row in enumerate(rows):
        for kind in result.keys() & row.keys():
            result[kind][t, : len(row[kind])] = [np.nan if value is None else value for value in row[kind]]
    return result


def voc_means(row: ClassAP) -> dict[str, float]:
    """VOC's AP as the mean over the classes seen, `voc11_ap50_all` and others; nothing on other images."""
    known = {name: [value for value in row[name] if value is not None] for name in VOC_MEANS if name in row}
    return {f"{name}_all": sum(values) / len(values) for name, values in known.items() if values}


def chain_metrics(
    config: TrialConfig, rows: Sequence[ClassAP], joint: Mapping[str, FloatArray] | None
) -> dict[str, float]:
    """Every metric at the end of the last of `rows`; those of a whole chain where it is whole."""
    ap, class_step = matrices(rows, len(config.scenario.class_names)), config.scenario.class_step
    summary = summarize(ap, class_step, joint)[-1]
    if len(rows) == len(config.scenario.steps):
        summary |= chain_summary(ap, class_step, joint)
    return summary
