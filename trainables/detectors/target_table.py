"""Assigned targets of a step's training images, for every flip, in a table: ATSS sees each image once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from mmdet.models import GFLHead
from mmdet.structures import DetDataSample
from torch import Tensor

from trainables.detectors.forward import Forward, Samples, Targets
from trainables.detectors.gfl_losses import assign
from trainables.tables import Array, TableWriter, opened, starts


class Rows:
    """Finds the row of an image, as it is or flipped, in a table that holds both."""

    def __init__(self, image_ids: Array, flipped: Array) -> None:
        pairs = zip(image_ids.tolist(), flipped.tolist(), strict=True)
        self._rows = {(image, bool(flip)): row for row, (image, flip) in enumerate(pairs)}

    def __contains__(self, sample: DetDataSample) -> bool:
        return self._key(sample) in self._rows

    def __call__(self, samples: Samples) -> list[int]:
        """The row of each sample."""
        return [self._rows[self._key(sample)] for sample in samples]

    @staticmethod
    def _key(sample: DetDataSample) -> tuple[int, bool]:
        return sample.img_id, bool(sample.get("flip", False))


def row_keys(samples: Samples) -> dict[str, Array]:
    """What `Rows` finds the rows of `samples` by."""
    return {
        "image_ids": np.array([sample.img_id for sample in samples]),
        "flipped": np.array([bool(sample.get("flip", False)) for sample in samples]),
    }


def grid_rows(output: Forward) -> dict[str, Array]:
    """Where the locations of a forward pass are."""
    return {
        "centers": output.centers.numpy(force=True),
        "strides": output.strides.numpy(force=True),
        "level_sizes": np.array(output.level_sizes),
    }


def write_targets(folder: Path, head: GFLHead, batches: Iterable[tuple[Tensor, Samples]]) -> None:
    """Write the targets of every image of `batches` of preprocessed images and samples."""
    with TableWriter(folder) as table:
        for images, samples in batches:
            targets = assign(head, samples, images.device)
            image, place = (targets.labels < targets.background).nonzero(as_tuple=True)
            ignored, ignored_place = (targets.weights == 0).nonzero(as_tuple=True)
            table.append(
                **row_keys(samples),
                counts=image.bincount(minlength=len(samples)).numpy(force=True),
                places=place.numpy(force=True).astype(np.int32),
                labels=targets.labels[image, place].numpy(force=True).astype(np.int32),
                boxes=targets.boxes[image, place].numpy(force=True),
                ignored_counts=ignored.bincount(minlength=len(samples)).numpy(force=True),
                ignored_places=ignored_place.numpy(force=True).astype(np.int32),
            )


class TargetTable:
    """Gives the targets that `write_targets` wrote, as `assign` would."""

    def __init__(self, folder: Path, background: int) -> None:
        self._arrays = arrays = opened(folder)
        self._rows = Rows(arrays["image_ids"], arrays["flipped"])
        self._starts, self._ignored = starts(arrays["counts"]), starts(arrays["ignored_counts"])
        self._background = background

    def __call__(self, output: Forward, samples: Samples) -> Targets:
        """The targets of a batch."""
        device, shape = output.cls_logits.device, output.cls_logits.shape[:2]
        rows = self._rows(samples)
        image, found = spans(self._starts, rows)
        place = torch.from_numpy(self._arrays["places"][found]).long()
        labels = torch.full(shape, self._background)
        labels[image, place] = torch.from_numpy(self._arrays["labels"][found]).long()
        boxes = torch.zeros(*shape, 4)
        boxes[image, place] = torch.from_numpy(self._arrays["boxes"][found])
        weights = torch.ones(shape)
        ignored_image, ignored = spans(self._ignored, rows)
        weights[ignored_image, torch.from_numpy(self._arrays["ignored_places"][ignored]).long()] = 0
        num_pos = float(image.bincount(minlength=len(rows)).clamp(min=1).sum())
        return Targets(labels.to(device), weights.to(device), boxes.to(device), num_pos, self._background)


def spans(begins: Array, rows: list[int]) -> tuple[Tensor, Array]:
    """Of the groups `rows`: for every member its place in `rows`, as a tensor (K,), and its index, as an array (K,)."""
    counts = [int(begins[row + 1] - begins[row]) for row in rows]
    members = [np.arange(begins[row], begins[row + 1]) for row in rows]
    return torch.arange(len(rows)).repeat_interleave(torch.tensor(counts)), np.concatenate(members)
