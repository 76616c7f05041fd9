"""A table of images gives what reading them anew gives: pixels, boxes, metainfo, and the random numbers after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from tests.trainables.batches import tiny
from tests.trainables.pictures import write_pictures
from trainables.datasets.detection import DetectionDataset
from trainables.datasets.image_table import ImageTable, StepDataset, TableDataset, stacked, write_images
from trainables.datasets.splits import Split
from trainables.datasets.steps import evaluation_set, training_set
from trainables.pipelines import test_pipeline as pipeline_of_tests
from trainables.pipelines import train_pipeline
from trainables.recipes import TINY, Recipe

NAMES = ("cat", "dog", "bird")
RAGGED = ((60, 80), (80, 60), (61, 33), (128, 128), (45, 90), (64, 64), (33, 70))
RECIPES = {
    "as it is": TINY,
    "flipped": replace(TINY, flip=0.5),
    "resized": replace(TINY, scale=(90, 70)),
    "resized, flipped": replace(TINY, scale=(90, 70), flip=0.5),
}
both_modes = pytest.mark.parametrize("test_mode", [False, True], ids=["training", "evaluation"])
every_recipe = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return write_pictures(tmp_path_factory.mktemp("ragged"), RAGGED, NAMES)


def two_ways(split: Split, recipe: Recipe, folder: Path, test_mode: bool) -> tuple[DetectionDataset, TableDataset]:
    """The data of a step, read anew and from a table."""
    learnt = NAMES[1:]
    coco = evaluation_set(split.coco, learnt) if test_mode else training_set(split.coco, learnt)
    pipeline = pipeline_of_tests(recipe) if test_mode else train_pipeline(recipe)
    write_images(folder, split, recipe, workers=0)
    return (
        DetectionDataset(coco, split.images, NAMES, pipeline, test_mode),
        TableDataset(coco, split.images, NAMES, recipe, ImageTable(folder), test_mode),
    )


def content(sample: DetDataSample) -> dict[str, Any]:
    """All that mmdet reads of a sample."""
    parts: dict[str, Any] = {"metainfo": sample.metainfo}
    for name, instances in sample.items():
        for key, value in instances.items():
            parts[f"{name}.{key}"] = type(value).__name__, getattr(value, "tensor", value).tolist()
    return parts


def drawn(dataset: StepDataset, places: Sequence[int]) -> tuple[list[Any], list[Any]]:
    """Pixels and content of the items, and the state of the random numbers after them."""
    np.random.seed(3)
    items = [dataset[place] for place in places]
    found = [(item["inputs"].dtype, item["inputs"].numpy().tobytes(), content(item["data_samples"])) for item in items]
    generator: Any = np.random.get_state()
    return found, [generator[1].tolist(), *generator[2:]]


@both_modes
@every_recipe
def test_items_are_the_same_to_the_bit_and_draw_the_same_numbers(
    split: Split, recipe: Recipe, test_mode: bool, tmp_path: Path
) -> None:
    read, tabled = two_ways(split, recipe, tmp_path, test_mode)
    assert len(tabled) == len(read) > 3
    assert tabled.metainfo == read.metainfo
    assert [tabled.get_data_info(place) for place in range(len(read))] == [
        read.get_data_info(place) for place in range(len(read))
    ]
    places = [*range(len(read)), *reversed(range(len(read))), 1, 1, 0, 0]
    expected = drawn(read, places)
    assert drawn(tabled, places) == expected
    flips = {sample["metainfo"].get("flip", False) for _, _, sample in expected[0]}
    assert flips == ({False, True} if recipe.flip and not test_mode else {False})
    boxes = {key for _, _, sample in expected[0] for key in sample if key.endswith("bboxes")}
    assert boxes == (set() if test_mode else {"gt_instances.bboxes", "ignored_instances.bboxes"})


@every_recipe
def test_batches_reach_the_detector_as_those_of_the_ordinary_loader(
    split: Split, recipe: Recipe, tmp_path: Path
) -> None:
    read, tabled = two_ways(split, recipe, tmp_path, test_mode=False)
    preprocess = tiny(len(NAMES)).data_preprocessor
    for _ in range(2):  # what is kept of an item must not be changed by its use
        np.random.seed(5)
        loader: Any = DataLoader(read, 3, collate_fn=pseudo_collate)
        expected = [preprocess(batch, True) for batch in loader]
        np.random.seed(5)
        found = [preprocess(batch, True) for batch in DataLoader(tabled, 3, collate_fn=stacked)]
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.equal(ours["inputs"], theirs["inputs"])
            assert list(map(content, ours["data_samples"])) == list(map(content, theirs["data_samples"]))


def test_images_of_one_size_make_one_tensor_and_others_a_list(tmp_path: Path) -> None:
    split = write_pictures(tmp_path / "even", [(48, 64)] * 3, NAMES)
    (tmp_path / "table").mkdir()
    read, tabled = two_ways(split, TINY, tmp_path / "table", test_mode=True)
    batch = stacked([tabled[place] for place in range(3)])
    assert batch["inputs"].shape == (3, 3, 48, 64)
    preprocess = tiny(len(NAMES)).data_preprocessor
    expected = preprocess(pseudo_collate([read[place] for place in range(3)]), True)
    assert torch.equal(preprocess(batch, True)["inputs"], expected["inputs"])
    ragged = stacked([{"inputs": torch.zeros(3, 2, size)} for size in (2, 3)])
    assert [image.shape for image in ragged["inputs"]] == [(3, 2, 2), (3, 2, 3)]


def test_workers_write_the_same_table(split: Split, tmp_path: Path) -> None:
    for workers in (0, 1):
        (tmp_path / str(workers)).mkdir()
        write_images(tmp_path / str(workers), split, RECIPES["resized"], workers)
    names = {path.name for path in (tmp_path / "0").iterdir()}
    assert names >= {"pixels.bin", "arrays.json"}
    assert all((tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes() for name in names)


def test_loader_workers_read_the_same_items(split: Split, tmp_path: Path) -> None:
    _, tabled = two_ways(split, TINY, tmp_path, test_mode=True)
    for place, batch in enumerate(DataLoader(tabled, 1, num_workers=1, collate_fn=stacked)):
        assert torch.equal(batch["inputs"][0], tabled[place]["inputs"])
        assert content(batch["data_samples"][0]) == content(tabled[place]["data_samples"])
