"""Pictures of noise with boxes and crowds, of any sizes, which the tests of tables write."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from trainables.datasets.splits import Split


def write_pictures(folder: Path, sizes: Sequence[tuple[int, int]], class_names: Sequence[str], seed: int = 0) -> Split:
    """A split of one picture for each (height, width) in px; every third one has a crowd of a class that it shows."""
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    for place, (height, width) in enumerate(sizes):
        image_id = 10**9 + 7 * (len(sizes) - place)  # neither small nor rising
        name = f"pictures-{seed}/{image_id}.{('png', 'jpg')[place % 2]}"
        (folder / f"pictures-{seed}").mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(folder / name), rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        labels = rng.permutation(len(class_names))[: rng.integers(1, 4)]
        crowds = [(labels[0], 1)] if place % 3 == 0 else []
        for label, crowd in [*((label, 0) for label in labels), *crowds]:
            annotations.append(_annotation(rng, len(annotations), image_id, int(label), crowd, height, width))
    categories = [{"id": 90 - label, "name": name} for label, name in enumerate(class_names)]
    file = folder / f"annotations-{seed}.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return Split(file, folder)


def _annotation(
    rng: np.random.Generator, number: int, image_id: int, label: int, crowd: int, height: int, width: int
) -> dict[str, Any]:
    w, h = width * rng.uniform(0.2, 0.6), height * rng.uniform(0.2, 0.6)
    box = [rng.uniform(0, width - w), rng.uniform(0, height - h), w, h]
    own = {"id": number + 1, "image_id": image_id, "category_id": 90 - label, "iscrowd": crowd}
    return own | {"bbox": [float(value) for value in box], "area": float(w * h)}
