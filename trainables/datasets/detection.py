"""The mmdet dataset of a COCO dict, with label ids from a class order that we choose."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmdet.datasets import BaseDetDataset

from trainables.datasets.steps import Coco
from trainables.errors import DataError


class DetectionDataset(BaseDetDataset):
    """Images and boxes for mmdet's transforms; a label id is the position of the category's name in `class_names`.

    mmdet's own CocoDataset takes the order of the file's categories instead and only renames them.

    Args:
        coco: what the step sees: a training set or an evaluation set of `steps`.
        images: the folder that the file names are relative to.
        class_names: the class order; every category of `coco` is one of them.
        pipeline: configs of mmdet's transforms.
        test_mode: keep images without an object; training drops them.

    Raises:
        DataError: a category outside `class_names`; when an item is taken, an image that cannot be read.
    """

    def __init__(
        self,
        coco: Coco,
        images: Path,
        class_names: Sequence[str],
        pipeline: Sequence[dict[str, Any]],
        test_mode: bool = False,
    ) -> None:
        self._labels = _labels(coco, class_names)
        self._images = images
        self._coco: Coco | None = coco
        super().__init__(metainfo={"classes": tuple(class_names)}, pipeline=list(pipeline), test_mode=test_mode)
        self._coco = None  # the base class keeps its own serialised copy, which data loader workers share

    def load_data_list(self) -> list[dict[str, Any]]:
        """One entry an image, in the order of the COCO dict."""
        assert self._coco is not None
        by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for annotation in self._coco["annotations"]:
            by_image[annotation["image_id"]].append(self._instance(annotation))
        return [
            {
                "img_path": str(self._images / image["file_name"]),
                "img_id": image["id"],
                "height": image["height"],
                "width": image["width"],
                "instances": by_image[image["id"]],
            }
            for image in self._coco["images"]
        ]

    def filter_data(self) -> list[dict[str, Any]]:
        """All images in test mode, else those with an object that is not ignored."""
        if self.test_mode:
            return list(self.data_list)
        return [
            image for image in self.data_list if any(not instance["ignore_flag"] for instance in image["instances"])
        ]

    def __getitem__(self, idx: int) -> dict[str, Any]:
        """The transformed item. An image that fails is an error here: mmengine would silently take another one."""
        try:
            data: dict[str, Any] | None = self.prepare_data(idx)
        except Exception:
            self._require_readable(idx)
            raise
        if data is None:
            self._require_readable(idx)
            raise DataError(self.get_data_info(idx)["img_path"], ["the transforms returned nothing for this image"])
        return data

    def _instance(self, annotation: dict[str, Any]) -> dict[str, Any]:
        x, y, width, height = annotation["bbox"]
        return {
            "bbox": [x, y, x + width, y + height],
            "bbox_label": self._labels[annotation["category_id"]],
            "ignore_flag": int(bool(annotation.get("iscrowd", 0))),
        }

    def _require_readable(self, idx: int) -> None:
        path = Path(self.get_data_info(idx)["img_path"])
        if not path.is_file():
            raise DataError(str(path), ["the image file does not exist"])
        content = np.fromfile(path, dtype=np.uint8)
        try:
            decoded = cv2.imdecode(content, cv2.IMREAD_COLOR) if len(content) else None
        except cv2.error as error:
            raise DataError(str(path), [f"must be a readable image, but: {' '.join(str(error).split())}"]) from error
        if decoded is None:
            raise DataError(str(path), [f"must be a readable image, but its {len(content)} bytes cannot be decoded"])


def _labels(coco: Coco, class_names: Sequence[str]) -> dict[int, int]:
    position = {name: label for label, name in enumerate(class_names)}
    if unknown := [category["name"] for category in coco["categories"] if category["name"] not in position]:
        raise DataError(
            "class order", [f"must name every category, but lacks {unknown}; it has {', '.join(class_names)}"]
        )
    return {category["id"]: position[category["name"]] for category in coco["categories"]}
