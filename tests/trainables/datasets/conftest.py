"""Small data sets that the tests write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

Coco = dict[str, Any]


def write_image(path: Path, width: int = 64, height: int = 48) -> None:
    """Write a grey picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(path.suffix, np.full((height, width, 3), 128, dtype=np.uint8))
    assert done
    path.write_bytes(data.tobytes())


def pets() -> Coco:
    """Five images, categories in no order of name or id, a crowd, an empty image, a sub-folder, a unicode name."""
    return {
        "info": {"year": 2024},
        "licenses": [{"id": 7}],
        "images": [
            {"id": 30, "file_name": "a.png", "width": 64, "height": 48},
            {"id": 10, "file_name": "sub/b.png", "width": 64, "height": 48},
            {"id": 20, "file_name": "Zürich 東京.png", "width": 64, "height": 48},
            {"id": 5, "file_name": "empty.png", "width": 64, "height": 48},
            {"id": 6, "file_name": "crowd.png", "width": 64, "height": 48},
        ],
        "categories": [{"id": 90, "name": "dog"}, {"id": 3, "name": "bird"}, {"id": 17, "name": "cat"}],
        "annotations": [
            {"id": 4, "image_id": 30, "category_id": 17, "bbox": [1, 2, 10, 12], "area": 120, "iscrowd": 0},
            {"id": 2, "image_id": 30, "category_id": 90, "bbox": [20, 2, 10, 12], "area": 90.5, "iscrowd": 0},
            {"id": 9, "image_id": 10, "category_id": 3, "bbox": [0, 0, 64.4, 48], "area": 3072, "iscrowd": 0},
            {"id": 1, "image_id": 20, "category_id": 17, "bbox": [5, 5, 5, 5], "segmentation": [[5, 5, 9, 5, 9, 9]]},
            {"id": 8, "image_id": 6, "category_id": 17, "bbox": [0, 0, 30, 30], "area": 900, "iscrowd": 1},
            {"id": 7, "image_id": 20, "category_id": 90, "bbox": [1, 1, 30, 30], "area": 900, "iscrowd": 1},
        ],
    }


@pytest.fixture
def pets_images(tmp_path: Path) -> Path:
    """The image folder of `pets`."""
    folder = tmp_path / "pets"
    for image in pets()["images"]:
        write_image(folder / image["file_name"])
    return folder


def left_aside(folder: Path) -> list[Path]:
    """What an interrupted write would have left in `folder`."""
    return [path for path in folder.rglob("*") if path.name.startswith(".")]
