"""A few of the images that a step is scored on with what is there, what its teacher found and what it finds itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from trainables.config import Runtime, TrialConfig
from trainables.datasets.splits import Split
from trainables.datasets.steps import Coco, is_object
from trainables.files import read_json, write_json
from trainables.records import PICTURE_FILE, score_identity
from trainables.store import Store

SHOWN_FILE = "shown.json"
"""Beside a step's AP: what it finds in the images that are shown."""
NUM_IMAGES, MAX_BOXES = 4, 8
MIN_SCORE = 0.3
PANEL_PX, HEAD_PX = 256, 22
QUALITY = 70
FONT, LETTERS = cv2.FONT_HERSHEY_SIMPLEX, 0.4
OLD, NEW = (200, 110, 20), (20, 110, 240)  # blue, green, red

Rows = Sequence[Mapping[str, Any]]
"""As of `trainables.prediction.predict`; what is there has no score."""
Image = np.ndarray


def write_picture(
    folder: Path, truth: Coco, detections: Rows, config: TrialConfig, runtime: Runtime, step: int
) -> None:
    """Write the picture of a step that was just scored, and what it finds there for the pictures of those it teaches.

    Args:
        folder: where its AP is written.
        truth: annotations of the classes seen by `step`, on all images.
        detections: on all images.
    """
    shown = shown_ids(runtime.scored.coco)
    own = [row for row in detections if row["image_id"] in shown and row["score"] >= MIN_SCORE]
    write_json(folder / SHOWN_FILE, own)
    there = [row for row in truth["annotations"] if row["image_id"] in shown and is_object(row)]
    columns = {"ground truth": there, **_before(config, runtime, step), "student": own}
    old = set(config.scenario.seen(step - 1)) if step else set()
    colours = {one["id"]: OLD if one["name"] in old else NEW for one in truth["categories"]}
    (folder / PICTURE_FILE).write_bytes(picture(runtime.scored, shown, columns, colours))


def shown_ids(coco: Coco) -> list[int]:
    """The images to show: of those with few boxes the ones with the most classes, whichever are learnt by then."""
    classes: dict[int, list[int]] = defaultdict(list)
    for row in coco["annotations"]:
        classes[row["image_id"]].append(row["category_id"])

    def rank(image: Mapping[str, Any]) -> tuple[bool, int]:
        own = classes[image["id"]]
        return len(own) > MAX_BOXES, -len(set(own))

    return [image["id"] for image in sorted(coco["images"], key=rank)[:NUM_IMAGES]]


def _before(config: TrialConfig, runtime: Runtime, step: int) -> dict[str, Rows]:
    """What the model that taught `step`, or that it went on from, finds; nothing where the store does not say."""
    if (taught_by := config.taught_by(step)) is None:
        return {}
    entry = Store(runtime.store).find("scores", score_identity(taught_by[0], runtime, taught_by[1]))
    found = entry / SHOWN_FILE if entry else None
    return {"teacher": read_json(found)} if found and found.exists() else {}


def picture(
    split: Split, image_ids: Sequence[int], columns: Mapping[str, Rows], colours: Mapping[int, tuple[int, int, int]]
) -> bytes:
    """A JPEG with a row for each image that can be read, and a column for each set of boxes.

    Args:
        columns: boxes on any images, under their heading.
        colours: by category id, as blue, green, red.
    """
    images = {image["id"]: image for image in split.coco["images"]}
    names = {one["id"]: one["name"] for one in split.coco["categories"]}
    heads = [np.full((HEAD_PX, PANEL_PX, 3), 255, np.uint8) for _ in columns]
    for head, title in zip(heads, columns, strict=True):
        cv2.putText(head, title, (4, HEAD_PX - 7), FONT, LETTERS, (0, 0, 0), 1, cv2.LINE_AA)
    rows = [np.hstack(heads)]
    for image_id in image_ids:
        read = cv2.imread(str(split.images / images[image_id]["file_name"]), cv2.IMREAD_COLOR)
        if read is not None:
            own = ([row for row in found if row["image_id"] == image_id] for found in columns.values())
            rows.append(np.hstack([_panel(read, boxes, names, colours) for boxes in own]))
    _, encoded = cv2.imencode(".jpg", np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return encoded.tobytes()


def _panel(image: Image, boxes: Rows, names: Mapping[int, str], colours: Mapping[int, tuple[int, int, int]]) -> Image:
    height, width = image.shape[:2]
    scale = (PANEL_PX - 4) / max(height, width)
    panel = np.full((PANEL_PX, PANEL_PX, 3), 255, np.uint8)
    small = cv2.resize(image, (max(1, round(width * scale)), max(1, round(height * scale))))
    panel[: small.shape[0], : small.shape[1]] = small
    for row in boxes:
        x, y, width, height = (round(value * scale) for value in row["bbox"])
        colour = colours[row["category_id"]]
        cv2.rectangle(panel, (x, y), (x + width, y + height), colour, 2)
        label = names[row["category_id"]] + (f" {100 * row['score']:.0f}" if "score" in row else "")
        (length, tall), _ = cv2.getTextSize(label, FONT, LETTERS, 1)
        foot = y if y > tall + 4 else y + height + tall + 4  # above the box where there is room
        cv2.rectangle(panel, (x - 1, foot - tall - 4), (x + length + 1, foot), colour, cv2.FILLED)
        cv2.putText(panel, label, (x, foot - 3), FONT, LETTERS, (255, 255, 255), 1, cv2.LINE_AA)
    return panel
