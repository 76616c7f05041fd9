"""The picture of what a step found: which images it shows, and what is drawn where."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from tests.trainables.pictures import write_pictures
from trainables.pictures import HEAD_PX, NEW, NUM_IMAGES, OLD, PANEL_PX, picture, shown_ids

NAMES = ("car", "bus", "tram")
COLOURS = {90: OLD, 89: OLD, 88: NEW}


def test_images_with_few_boxes_and_many_classes_are_shown_whatever_is_learnt_by_then() -> None:
    classes = {1: [1], 2: [1, 2], 3: [], 4: [1, 2, 3], 5: [1, 2, 3, 4] * 5, 6: [2, 2], 7: [3, 4]}
    rows = [{"image_id": image_id, "category_id": one} for image_id, own in classes.items() for one in own]
    assert shown_ids({"images": [{"id": image_id} for image_id in classes], "annotations": rows}) == [4, 2, 7, 1]


def test_a_row_an_image_and_a_column_a_set_of_boxes(tmp_path: Path) -> None:
    split = write_pictures(tmp_path, [(60, 120), (90, 40), (50, 50)], NAMES)
    first, second, third = (image["id"] for image in split.coco["images"])
    (tmp_path / split.coco["images"][2]["file_name"]).write_bytes(b"no picture")
    box = {"bbox": [30.0, 15.0, 60.0, 30.0]}
    there = [{"image_id": first, "category_id": 90, **box}, {"image_id": third, "category_id": 88, **box}]
    found = [{"image_id": first, "category_id": 88, "score": 0.87, **box}]
    encoded = picture(split, [first, second, third], {"ground truth": there, "student": found}, COLOURS)
    drawn = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape == (HEAD_PX + 2 * PANEL_PX, 2 * PANEL_PX, 3)  # the third image cannot be read
    plain = cv2.imdecode(np.frombuffer(picture(split, [first], {"": []}, COLOURS), np.uint8), cv2.IMREAD_COLOR)
    scale = (PANEL_PX - 4) / 120
    edge = np.s_[HEAD_PX + round(20 * scale) : HEAD_PX + round(40 * scale), round(30 * scale)]  # the box's left
    for column, colour in enumerate((OLD, NEW)):
        line = drawn[:, column * PANEL_PX : (column + 1) * PANEL_PX][edge].astype(float).mean(0)
        bare = plain[edge].astype(float).mean(0)
        assert np.abs(line - colour).sum() < np.abs(bare - colour).sum() / 2


def test_few_images_are_few(tmp_path: Path) -> None:
    split = write_pictures(tmp_path, [(600, 800)] * 9, NAMES)
    shown = shown_ids(split.coco)
    assert len(shown) == NUM_IMAGES
    assert len(picture(split, shown, {"a": [], "b": [], "c": []}, COLOURS)) < 500_000  # of noise; photographs have 100
