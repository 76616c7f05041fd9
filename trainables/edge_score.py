"""A checkpoint beside its ONNX files: calibrated on training images, scored and timed on others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.models import BaseDetector
from mmdet.structures import DetDataSample
from torch.nn import functional as F
from torch.utils.data import Dataset

from trainables.datasets import steps
from trainables.datasets.detection import DetectionDataset
from trainables.datasets.image_table import in_order, stacked
from trainables.datasets.splits import Split
from trainables.edge import Array, Footprint, OnnxDetector, detections, footprint, write_int8, write_onnx
from trainables.evaluation import evaluate
from trainables.pipelines import test_pipeline
from trainables.prediction import coco_rows, predict
from trainables.recipes import Recipe

CALIBRATION_IMAGES = 100


@dataclass(frozen=True)
class Form:
    """A detector in one form: its AP, and of an ONNX file what it needs and its milliseconds for an image."""

    ap: float
    footprint: Footprint | None = None
    latency_ms: float | None = None


class EdgeExport:
    """ONNX files of an exported detector.

    Args:
        detector: as `load_exported` gives it.
        train, test: splits of a data set that has the detector's classes; the first images of `train` calibrate.

    Raises:
        DataError: a class that the data set has not.
    """

    def __init__(self, detector: BaseDetector, recipe: Recipe, train: Split, test: Split) -> None:
        self._detector, self._recipe = detector, recipe
        self._classes = tuple(detector.dataset_meta["classes"])
        self._category_ids = steps.category_ids(test.coco, self._classes)
        self._train, self._test = train, test
        self.size = _size([*train.coco["images"], *test.coco["images"]], recipe)

    def write(self, path: Path) -> None:
        """Write the detector in float32."""
        recipe, test_cfg = self._recipe, self._detector.bbox_head.test_cfg
        meta = {
            "classes": ",".join(self._classes), "mean": recipe.mean, "std": recipe.std, "channels": "RGB",
            "keep_ratio": recipe.keep_ratio, "score_thr": test_cfg.score_thr, "nms": dict(test_cfg.nms),
        }  # fmt: skip
        write_onnx(self._detector, self.size, meta, path)

    def write_int8(self, source: Path, path: Path) -> None:
        """Write the file `source` in int8."""
        images = (image for image, _ in self._images(self._dataset(self._train)))
        write_int8(source, islice(images, CALIBRATION_IMAGES), path)

    def as_trained(self) -> Form:
        """The detector under torch."""
        return Form(self._ap(self.detected()))

    def scored(self, path: Path) -> Form:
        """One of its files."""
        latency_ms = OnnxDetector(path).latency_ms(np.zeros((1, 3, *self.size), np.float32))
        return Form(self._ap(self.detected(path)), footprint(path), latency_ms)

    def detected(self, path: Path | None = None) -> list[dict[str, Any]]:
        """What the detector, or one of its files, finds in the test images, as COCO results."""
        dataset = self._dataset(self._test)
        if path is None:
            return predict(self._detector, dataset, self._category_ids, 16)
        detector, rows = OnnxDetector(path), []
        for image, sample in self._images(dataset):
            found = detections(*detector(image), sample.img_shape, self._detector.bbox_head.test_cfg)
            found.bboxes /= torch.tensor(sample.scale_factor).repeat(2)
            rows += coco_rows(sample.img_id, found, self._category_ids)
        return rows

    def _ap(self, rows: list[dict[str, Any]]) -> float:
        table = evaluate(self._test.coco, rows, self._category_ids).per_class["ap"]
        return float(np.nanmean(table))

    def _dataset(self, split: Split) -> DetectionDataset:
        truth = steps.evaluation_set(split.coco, self._classes)
        return DetectionDataset(truth, split.images, self._classes, test_pipeline(self._recipe), test_mode=True)

    def _images(self, dataset: Dataset[Any]) -> Iterator[tuple[Array, DetDataSample]]:
        """Each image, preprocessed and padded (1, 3, height, width), and its sample."""
        height, width = self.size
        for batch in in_order(dataset, 1, 0, stacked):
            data = self._detector.data_preprocessor(batch, False)
            image = data["inputs"]
            padded = F.pad(image, (0, width - image.shape[3], 0, height - image.shape[2]))
            yield padded.numpy(force=True), data["data_samples"][0]


def _size(images: Iterable[dict[str, Any]], recipe: Recipe) -> tuple[int, int]:
    """Height and width that every image fits in after the resize, padded."""
    sizes = np.array([recipe.resized(image["height"], image["width"]) for image in images])
    height, width = (np.ceil(sizes.max(0) / recipe.pad_divisor) * recipe.pad_divisor).astype(int).tolist()
    return height, width
