"""A table of targets gives what `assign` gives, exactly, for every image and flip and in any batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.models import SingleStageDetector
from torch import Tensor
from torch.utils.data import DataLoader

from tests.trainables.batches import sample, tiny
from tests.trainables.pictures import write_pictures
from trainables.datasets.detection import DetectionDataset
from trainables.datasets.image_table import stacked
from trainables.datasets.steps import training_set
from trainables.detectors.families import GFL
from trainables.detectors.forward import Samples
from trainables.detectors.gfl_losses import Targets, assign
from trainables.detectors.target_table import TargetTable, write_targets
from trainables.pipelines import train_pipeline
from trainables.recipes import TINY

NAMES = ("cat", "dog", "bird", "cow")
SIZE = (100, 70)  # px; the input is padded to 128 x 96
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def detector() -> SingleStageDetector:
    return tiny(len(NAMES))


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> list[DetectionDataset]:
    """Nine images of a step that learns two of the classes: as they are, and flipped."""
    split = write_pictures(tmp_path_factory.mktemp("even"), [SIZE] * 11, NAMES)
    coco = training_set(split.coco, NAMES[2:])
    return [
        DetectionDataset(coco, split.images, NAMES, train_pipeline(replace(TINY, flip=flip))) for flip in (0.0, 1.0)
    ]


def preprocessed(detector: SingleStageDetector, items: list[dict[str, Any]]) -> tuple[Tensor, Samples]:
    data = detector.data_preprocessor(stacked(items), True)
    return data["inputs"], data["data_samples"]


@pytest.fixture(scope="module")
def table(
    detector: SingleStageDetector, datasets: list[DetectionDataset], tmp_path_factory: pytest.TempPathFactory
) -> TargetTable:
    def batches() -> Iterator[tuple[Tensor, Samples]]:
        for dataset in datasets:
            for items in DataLoader(dataset, 4, collate_fn=list):
                yield preprocessed(detector, items)

    folder = tmp_path_factory.mktemp("targets")
    write_targets(folder, detector.bbox_head, batches())
    return TargetTable(folder, detector.bbox_head.num_classes)


def assert_found(table: TargetTable, detector: SingleStageDetector, items: list[dict[str, Any]]) -> None:
    images, samples = preprocessed(detector, items)
    found = table(GFL.forward(detector, images), [item["data_samples"] for item in items])
    assert_same(found, assign(detector.bbox_head, samples, CPU))


def assert_same(found: Targets, expected: Targets) -> None:
    for name in ("labels", "weights", "boxes"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs), name
    assert (found.num_pos, found.background) == (expected.num_pos, expected.background)


def test_every_image_and_flip_has_its_targets(
    table: TargetTable, detector: SingleStageDetector, datasets: list[DetectionDataset]
) -> None:
    for dataset in datasets:
        for item in dataset:
            assert_found(table, detector, [item])


def test_images_come_together_in_any_order(
    table: TargetTable, detector: SingleStageDetector, datasets: list[DetectionDataset]
) -> None:
    items = [item for dataset in datasets for item in dataset]
    drawn = np.random.default_rng(0)
    for count in (2, 3, 7, len(items)):
        for _ in range(3):
            assert_found(table, detector, [items[place] for place in drawn.permutation(len(items))[:count]])
    assert_found(table, detector, [items[2], items[2], items[-1]])


def test_the_data_have_crowds_padding_and_both_flips(
    detector: SingleStageDetector, datasets: list[DetectionDataset]
) -> None:
    assert all(len(dataset) > 4 for dataset in datasets)
    items = [item for dataset in datasets for item in dataset]
    images, samples = preprocessed(detector, items)
    assert images.shape[2:] == (128, 96)
    targets = assign(detector.bbox_head, samples, CPU)
    assert set(targets.labels.unique().tolist()) == {2, 3, len(NAMES)}
    assert any(len(sample.ignored_instances) for sample in samples)
    assert {sample.get("flip", False) for sample in samples} == {False, True}


def test_images_without_objects_and_with_padding_have_rows(detector: SingleStageDetector, tmp_path: Path) -> None:
    samples = [sample([], []), sample([(3.0, 5.0, 30.0, 33.0)], [1]), sample([], [])]
    for number, image in enumerate(samples):
        image.set_metainfo({"img_id": number, "pad_shape": (64 - 16 * number, 64)})
    images = torch.zeros(3, 3, 64, 64)
    write_targets(tmp_path, detector.bbox_head, [(images, samples)])
    table = TargetTable(tmp_path, len(NAMES))
    for rows in ([0, 2], [1, 2], [2, 1], [1]):
        chosen, output = [samples[row] for row in rows], GFL.forward(detector, images[rows])
        expected = assign(detector.bbox_head, chosen, CPU)
        assert_same(table(output, chosen), expected)
        assert [bool((weights == 0).any()) for weights in expected.weights] == [row > 0 for row in rows]
