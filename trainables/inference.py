"""An exported checkpoint that takes images as people have them; MLflow serves it, see `trainables.pyfunc`."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.dataset import Compose
from numpy.typing import NDArray

from trainables.catalog import DETECTORS
from trainables.datasets.image_table import stacked
from trainables.errors import DataError, in_a_line
from trainables.export import load_exported
from trainables.pipelines import test_pipeline

Image = NDArray[np.uint8] | bytes | str
"""Pixels (height, width, 3), RGB; a JPEG or PNG file, or what else OpenCV reads; or such a file in base64."""
FORMS = "RGB pixels, uint8 (height, width, 3), or an image file as bytes or in base64"


class ImageDetector:
    """Boxes, scores and classes in images of any sizes, one image after the other, on the CPU.

    Raises:
        CheckpointError: not an exported checkpoint, or not of this version's detectors.
    """

    def __init__(self, checkpoint: Path) -> None:
        self._detector = load_exported(checkpoint)
        recipe = DETECTORS[self._detector.dataset_meta["detector"]].recipe
        self._transforms = Compose([{"type": "LoadImageFromNDArray"}, *test_pipeline(recipe)[1:]])

    def predict(self, model_input: Any) -> list[dict[str, list[Any]]]:
        """What `detect` finds in the images of a table's column `image`; MLflow calls it by this name."""
        cells = [cell if isinstance(cell, list) else [cell] for cell in model_input["image"]]  # texts can share one
        return self.detect(image for cell in cells for image in cell)

    def detect(self, images: Iterable[Image]) -> list[dict[str, list[Any]]]:
        """For each image, best first: `boxes` (x1, y1, x2, y2 in px of the image), `scores` (0 to 1), `classes`.

        Raises:
            DataError: every image that cannot be read.
        """
        found, problems = [], []
        for number, image in enumerate(images):
            try:
                pixels = _pixels(image)
            except (ValueError, cv2.error) as error:
                problems.append(f"image {number} must be {FORMS}, but: {in_a_line(error)}")
            else:
                found.append(self._found(pixels))
        if problems:
            raise DataError("images", problems)
        return found

    @torch.no_grad()
    def _found(self, pixels: NDArray[Any]) -> dict[str, list[Any]]:
        (sample,) = self._detector.test_step(stacked([self._transforms({"img": pixels, "img_id": 0})]))
        found, classes = sample.pred_instances, self._detector.dataset_meta["classes"]
        return {
            "boxes": found.bboxes.tolist(),
            "scores": found.scores.tolist(),
            "classes": [classes[label] for label in found.labels.tolist()],
        }


def _pixels(image: Image) -> NDArray[Any]:
    """(height, width, 3), BGR, as mmdet's transforms read them.

    Raises:
        ValueError, cv2.error: not an image.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f"it is {image.dtype} {image.shape}")
        return np.ascontiguousarray(image[..., ::-1])
    content = base64.b64decode(image) if isinstance(image, str) else image
    if not isinstance(content, bytes):
        raise ValueError(f"it is {type(image).__name__}")
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    if decoded is None:
        raise ValueError(f"its {len(content)} bytes cannot be decoded")
    return decoded
