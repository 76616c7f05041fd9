"""A data set in COCO format: pictures of one to four shapes. `python data_set.py FOLDER` writes it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

CORNERS = {
    "square": [(0, 0), (1, 0), (1, 1), (0, 1)],
    "diamond": [(0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)],
    "triangle": [(0.5, 0), (1, 1), (0, 1)],
    "arrow": [(0, 0), (1, 0.5), (0, 1), (0.3, 0.5)],
}


def write(root: Path, sizes: Mapping[str, int], seed: int = 0) -> None:
    """Write the pictures `PART/*.png` and the annotations `PART.json` of each part of `sizes` into `root`."""
    rng = np.random.default_rng(seed)
    categories = [{"id": number, "name": name} for number, name in enumerate(CORNERS)]
    for part, size in sizes.items():
        (root / part).mkdir(parents=True)
        coco: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": categories}
        for image in range(size):
            picture = rng.integers(90, 160, (128, 128, 3), dtype=np.uint8)
            for quarter in rng.permutation(4)[: rng.integers(1, 5)]:
                category, side = int(rng.integers(4)), int(rng.integers(24, 60))
                corner = np.array([quarter % 2, quarter // 2]) * 64 + rng.integers(0, 64 - side, 2)
                corners = corner + (side - 1) * np.array(CORNERS[categories[category]["name"]])
                cv2.fillPoly(picture, [np.rint(corners).astype(np.int32)], rng.choice([0, 255], 3).tolist())
                box = {"bbox": [*corner.tolist(), side, side], "id": len(coco["annotations"])}
                coco["annotations"].append({**box, "image_id": image, "category_id": category})
            cv2.imwrite(str(root / part / f"{image}.png"), picture)
            coco["images"].append({"id": image, "file_name": f"{image}.png", "width": 128, "height": 128})
        (root / f"{part}.json").write_text(json.dumps(coco))


if __name__ == "__main__":
    write(Path(sys.argv[1]), {"train": 400, "test": 100})
