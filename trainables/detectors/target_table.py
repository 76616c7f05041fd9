"""Assigned targets of a step's training images, for every flip, in a table: ATSS sees each image once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from mmdet.models import GFLHead
from torch import Tensor

from trainables.detectors.forward import Forward, Samples, Targets
from trainables.detectors.gfl_losses import assign
from trainables.tables import Rows, TableWriter, opened, row_keys, spans, starts


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
        self._rows = Rows(arrays)
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
