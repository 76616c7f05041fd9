"""Images as people have them: whatever their form, an exported checkpoint finds what it finds in a data set."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.trainables.batches import tiny
from tests.trainables.pictures import write_pictures
from trainables import pipelines
from trainables.catalog import DETECTORS
from trainables.datasets.detection import DetectionDataset
from trainables.errors import DataError
from trainables.export import export_student, load_exported
from trainables.inference import ImageDetector
from trainables.prediction import predict

CLASSES = ("cat", "dog", "bird")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported detector that finds something everywhere."""
    folder = tmp_path_factory.mktemp("checkpoint")
    weights = tiny(len(CLASSES)).state_dict()
    weights["bbox_head.gfl_cls.bias"] += 4
    torch.save({"state_dict": weights, "meta": {"detector": "gfl_r18_tiny", "classes": CLASSES}}, folder / "it.pth")
    return export_student(folder / "it.pth", folder)[0]


def test_a_file_its_base64_and_its_pixels_give_what_a_data_set_gives(checkpoint: Path, tmp_path: Path) -> None:
    split = write_pictures(tmp_path, [(64, 96), (80, 48)], CLASSES)
    dataset = DetectionDataset(
        split.coco, split.images, CLASSES, pipelines.test_pipeline(DETECTORS["gfl_r18_tiny"].recipe), test_mode=True
    )
    expected = predict(load_exported(checkpoint), dataset, range(len(CLASSES)), 1)
    files = [split.images / image["file_name"] for image in split.coco["images"]]
    detector, contents = ImageDetector(checkpoint), [file.read_bytes() for file in files]
    found = detector.detect(contents)
    rows = [
        (image["id"], CLASSES.index(name), [x1, y1, x2 - x1, y2 - y1], score)
        for image, one in zip(split.coco["images"], found, strict=True)
        for (x1, y1, x2, y2), score, name in zip(one["boxes"], one["scores"], one["classes"], strict=True)
    ]
    assert len(rows) > 10
    assert rows == [(row["image_id"], row["category_id"], row["bbox"], row["score"]) for row in expected]
    assert detector.detect(base64.encodebytes(content).decode() for content in contents) == found
    assert detector.detect(cv2.imread(str(file))[..., ::-1] for file in files) == found
    texts = [base64.b64encode(content).decode() for content in contents]
    assert detector.predict({"image": [texts]}) == detector.predict({"image": texts}) == found


def test_every_image_that_is_none_is_told(checkpoint: Path) -> None:
    good = np.zeros((32, 32, 3), np.uint8)
    given = [good, b"", b"hello", "aGVsbG8=", "a", good.astype(float), good[..., 0], good[:0], 7, good]
    with pytest.raises(DataError) as raised:
        ImageDetector(checkpoint).detect(given)  # type: ignore[arg-type]
    assert [problem.split()[1] for problem in raised.value.problems] == list("12345678")
    assert "uint8 (height, width, 3), or an image file as bytes or in base64, but: " in raised.value.problems[0]
    assert raised.value.problems[5].endswith("it is uint8 (32, 32)")
