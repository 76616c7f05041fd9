"""Items of a data set: the image, its boxes under label ids, its crowds."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.utils import register_all_modules
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from tests.trainables.datasets.files import Coco, pets
from trainables.datasets.detection import DetectionDataset
from trainables.datasets.steps import evaluation_set, training_set
from trainables.errors import DataError

register_all_modules(init_default_scope=True)

PIPELINE: list[dict[str, Any]] = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations", "with_bbox": True},
    {"type": "PackDetInputs"},
]
NAMES = ("cat", "dog", "bird")


def boxes(dataset: DetectionDataset) -> dict[int, list[tuple[str, list[float], int]]]:
    """For each image id: class name, corners and ignore flag of each box, in a fixed order."""
    names = dataset.metainfo["classes"]
    return {
        info["img_id"]: sorted((names[box["bbox_label"]], box["bbox"], box["ignore_flag"]) for box in info["instances"])
        for info in (dataset.get_data_info(index) for index in range(len(dataset)))
    }


def shuffled(coco: Coco, seed: int) -> Coco:
    """The same data with other category ids and everything in another order."""
    rng = random.Random(seed)
    renamed = {category["id"]: rng.randrange(1000) * 100 + n for n, category in enumerate(coco["categories"])}
    categories = [category | {"id": renamed[category["id"]]} for category in coco["categories"]]
    annotations = [box | {"category_id": renamed[box["category_id"]]} for box in coco["annotations"]]
    parts = {"images": list(coco["images"]), "annotations": annotations, "categories": categories}
    for part in parts.values():
        rng.shuffle(part)
    return coco | parts


def test_items_hold_the_image_its_id_and_its_boxes(pets_images: Path) -> None:
    dataset = DetectionDataset(training_set(pets(), NAMES), pets_images, NAMES, PIPELINE)
    item = dataset[0]
    assert item["inputs"].shape == (3, 48, 64)
    sample = item["data_samples"]
    assert sample.img_id == 30
    assert sample.gt_instances.bboxes.tensor.tolist() == [[1, 2, 11, 14], [20, 2, 30, 14]]
    assert sample.gt_instances.labels.tolist() == [0, 1]


def test_crowds_are_ignored_instances(pets_images: Path) -> None:
    dataset = DetectionDataset(training_set(pets(), NAMES), pets_images, NAMES, PIPELINE)
    sample = next(item["data_samples"] for item in dataset if item["data_samples"].img_id == 20)
    assert sample.gt_instances.labels.tolist() == [0]
    assert sample.ignored_instances.labels.tolist() == [1]
    assert sample.ignored_instances.bboxes.tensor.tolist() == [[1, 1, 31, 31]]


@pytest.mark.parametrize("seed", range(5))
def test_labels_follow_the_class_names_whatever_the_file_says(seed: int, pets_images: Path) -> None:
    expected = boxes(DetectionDataset(pets(), pets_images, NAMES, PIPELINE, test_mode=True))
    assert ("cat", [1, 2, 11, 14], 0) in expected[30]
    order = random.Random(seed).sample(NAMES, 3)
    dataset = DetectionDataset(shuffled(pets(), seed), pets_images, order, PIPELINE, test_mode=True)
    assert boxes(dataset) == expected
    label = next(
        box["bbox_label"]
        for info in map(dataset.get_data_info, range(5))
        if info["img_id"] == 10
        for box in info["instances"]
    )
    assert label == order.index("bird")


def test_a_step_has_global_labels(pets_images: Path) -> None:
    dataset = DetectionDataset(training_set(pets(), ["bird"]), pets_images, NAMES, PIPELINE)
    assert [box["bbox_label"] for box in dataset.get_data_info(0)["instances"]] == [2]


def test_evaluation_keeps_images_without_boxes_and_training_drops_them(pets_images: Path) -> None:
    evaluated = DetectionDataset(evaluation_set(pets(), ["cat"]), pets_images, NAMES, PIPELINE, test_mode=True)
    assert list(boxes(evaluated)) == [30, 10, 20, 5, 6]
    assert evaluated[3]["data_samples"].gt_instances.bboxes.shape == (0, 4)
    learnt = DetectionDataset(evaluation_set(pets(), ["cat"]), pets_images, NAMES, PIPELINE)
    assert list(boxes(learnt)) == [30, 20]  # the crowd of image 6 is no object


def test_a_category_outside_the_class_names_is_refused(pets_images: Path) -> None:
    with pytest.raises(DataError, match=r"lacks \['bird'\]; it has cat, dog"):
        DetectionDataset(pets(), pets_images, ("cat", "dog"), PIPELINE)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


HEADER = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
HUGE = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", HEADER) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")
"""A few bytes that say that they are ten billion pixels."""


@pytest.mark.parametrize("test_mode", [False, True])
@pytest.mark.parametrize("content", [b"", b"no image", HUGE, None])
def test_a_broken_image_is_an_error_that_names_the_file(
    content: bytes | None, test_mode: bool, pets_images: Path
) -> None:
    dataset = DetectionDataset(pets(), pets_images, NAMES, PIPELINE, test_mode=test_mode)
    path = pets_images / "a.png"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png: "):
        dataset[0]


def test_a_fault_of_the_transforms_is_not_blamed_on_the_image(pets_images: Path) -> None:
    def broken(data: dict[str, Any]) -> dict[str, Any]:
        raise ZeroDivisionError

    dataset = DetectionDataset(pets(), pets_images, NAMES, [*PIPELINE[:2], broken])  # type: ignore[list-item]
    with pytest.raises(ZeroDivisionError):
        dataset[0]


def test_transforms_that_return_nothing_are_an_error(pets_images: Path) -> None:
    dataset = DetectionDataset(pets(), pets_images, NAMES, [*PIPELINE[:2], lambda data: None])  # type: ignore[list-item]
    with pytest.raises(DataError, match=r"a\.png: the transforms returned nothing"):
        dataset[0]


def test_data_loader_workers_read_the_same_items(pets_images: Path) -> None:
    dataset = DetectionDataset(pets(), pets_images, NAMES, PIPELINE, test_mode=True)
    loader: DataLoader[Any] = DataLoader(dataset, batch_size=2, num_workers=1, collate_fn=pseudo_collate)
    ids = [sample.img_id for batch in loader for sample in batch["data_samples"]]
    assert ids == [30, 10, 20, 5, 6]
    assert all(isinstance(image, torch.Tensor) for batch in loader for image in batch["inputs"])
    assert np.asarray(next(iter(loader))["inputs"][0]).shape == (3, 48, 64)
