"""Decoded, resized images of a split in a table, and the data set that feeds them to mmdet without decoding again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.datasets.transforms import RandomFlip
from mmdet.structures import DetDataSample
from mmengine.dataset import pseudo_collate
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trainables.datasets.detection import DetectionDataset
from trainables.datasets.splits import Split
from trainables.datasets.steps import Coco
from trainables.errors import DataError
from trainables.pipelines import test_pipeline, train_pipeline
from trainables.recipes import Recipe
from trainables.tables import TableWriter, opened, starts


def write_images(folder: Path, split: Split, recipe: Recipe, workers: int) -> None:
    """Write every image of `split` as a detector's input before flip and normalisation: (3, H, W), BGR, 0 to 255.

    Raises:
        DataError: an image that cannot be read, or has another size than its annotations say.
    """
    coco = split.coco | {"annotations": [], "categories": []}
    dataset = DetectionDataset(coco, split.images, (), test_pipeline(recipe), test_mode=True)
    loader = in_order(dataset, None, workers, _as_it_is)
    with TableWriter(folder) as table:
        for place, packed in enumerate(loader):
            _require_size(packed["data_samples"], dataset.get_data_info(place))
            pixels = packed["inputs"].numpy()
            table.append(
                image_ids=np.array([packed["data_samples"].img_id]),
                shapes=np.array([pixels.shape[1:]]),
                pixels=pixels.reshape(-1),
            )


def _require_size(sample: DetDataSample, info: dict[str, Any]) -> None:
    stated = info["height"], info["width"]
    if tuple(sample.ori_shape) != stated:
        raise DataError(
            sample.img_path, [f"has {sample.ori_shape} px (height, width), but its annotations say {stated}"]
        )


def _as_it_is(item: Any) -> Any:
    return item


class ImageTable:
    """The images that `write_images` wrote, by their ids."""

    def __init__(self, folder: Path) -> None:
        arrays = opened(folder)
        self._pixels, self._shapes = arrays["pixels"], arrays["shapes"]
        self._starts = starts(3 * self._shapes.prod(axis=1))
        self._rows = {int(image): row for row, image in enumerate(arrays["image_ids"])}

    def __getitem__(self, image_id: int) -> Tensor:
        """(3, H, W) pixels of an image; not to be written to."""
        row = self._rows[image_id]
        pixels = self._pixels[self._starts[row] : self._starts[row + 1]]
        return torch.from_numpy(np.asarray(pixels).reshape(3, *self._shapes[row]))


class TableDataset(Dataset[dict[str, Any]]):
    """What a `DetectionDataset` gives with `train_pipeline` or `test_pipeline`, from a table.

    Items are the same to the bit and draw the same random numbers. What mmdet packs beside the pixels is kept in this
    process, for each image and flip.
    """

    def __init__(
        self, coco: Coco, images: Path, class_names: Sequence[str], recipe: Recipe, table: ImageTable, test_mode: bool
    ) -> None:
        self._flip = RandomFlip(prob=recipe.flip) if recipe.flip and not test_mode else None
        pipeline = test_pipeline(recipe) if test_mode else train_pipeline(recipe)
        self._annotated = [
            DetectionDataset(coco, images, class_names, _without_images(pipeline, prob), test_mode)
            for prob in ((0.0, 1.0) if self._flip else (0.0,))
        ]
        self._samples: dict[tuple[int, bool], DetDataSample] = {}
        self._table, self.metainfo = table, self._annotated[0].metainfo

    def __len__(self) -> int:
        return len(self._annotated[0])

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """What the annotations say of an image: `AspectRatioBatchSampler` asks for its height and width."""
        info: dict[str, Any] = self._annotated[0].get_data_info(idx)
        return info

    def __getitem__(self, idx: int) -> dict[str, Any]:
        flipped = self._flip is not None and self._flip._choose_direction() is not None
        if (idx, flipped) not in self._samples:
            self._samples[idx, flipped] = self._packed(idx, flipped)
        sample = self._samples[idx, flipped]
        pixels = self._table[sample.img_id]
        return {"inputs": pixels.flip(-1) if flipped else pixels, "data_samples": sample}

    def _packed(self, idx: int, flipped: bool) -> DetDataSample:
        state = np.random.get_state()  # a flip that is certain draws a number as well
        sample = self._annotated[flipped][idx]["data_samples"]
        np.random.set_state(state)
        return sample


StepDataset = DetectionDataset | TableDataset
"""What a step learns from or is scored on."""


def _without_images(pipeline: list[dict[str, Any]], flip: float) -> list[Any]:
    """`pipeline` on a blank image, flipped with probability `flip` where it flips."""
    return [_blank, *(step | ({"prob": flip} if step["type"] == "RandomFlip" else {}) for step in pipeline[1:])]


def _blank(results: dict[str, Any]) -> dict[str, Any]:
    """In place of reading an image: one of its size."""
    shape = results["height"], results["width"]
    return results | {"img": np.zeros((*shape, 3), np.uint8), "img_shape": shape, "ori_shape": shape}


def in_order(
    dataset: Dataset[Any], batch_size: int | None, workers: int, collate: Callable[..., Any]
) -> DataLoader[Any]:
    """A loader of a data set in its order, which leaves the random state alone: torch's own draws a seed from it."""
    own = torch.Generator().manual_seed(0)
    return DataLoader(dataset, batch_size, num_workers=workers, collate_fn=collate, generator=own)


def stacked(items: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch of items; images of one size as one tensor (B, 3, H, W), which the preprocessor takes in one go."""
    batch: dict[str, Any] = pseudo_collate(items)
    if len({pixels.shape for pixels in batch["inputs"]}) == 1:
        batch["inputs"] = torch.stack(batch["inputs"])
    return batch
