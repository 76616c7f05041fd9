"""A teacher's responses to a step's training images in a table, kept for the loosest thresholds of a sweep.

For each image and flip: mean, deviation and minimum of its responses, and what the teacher says wherever a trial may
listen. Each trial cuts at its own thresholds and gets to the bit what a live teacher would have told it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from search_spaces.erd import ERDParams
from trainables.detectors.forward import Forward, Grid, Samples, rounded
from trainables.distillation.erd import Responses, Taught, candidates, responses, select
from trainables.tables import Array, Rows, TableWriter, opened, row_keys, spans, starts


def write_responses(folder: Path, batches: Iterable[tuple[Samples, Forward]], floor: ERDParams, dtype: str) -> None:
    """Write what a teacher says of every image of `batches`, wherever a trial not looser than `floor` may listen."""
    with TableWriter(folder) as table:
        for number, (samples, output) in enumerate(batches):
            output = rounded(output, dtype)
            found = responses(output, floor)
            of_classes, of_boxes = candidates(found, output.level_sizes, floor)
            image, place = at = (of_classes | of_boxes).nonzero(as_tuple=True)
            table.append(
                **row_keys(samples),
                counts=image.bincount(minlength=len(samples)).numpy(force=True),
                of_scores=found.of_scores.numpy(force=True),
                of_boxes=found.of_boxes.numpy(force=True),
                places=place.numpy(force=True).astype(np.int32),
                scores=found.scores[at].numpy(force=True),
                labels=found.labels[at].numpy(force=True).astype(np.int16),
                boxes=found.boxes[at].numpy(force=True),
                cls_logits=output.cls_logits[at].numpy(force=True).astype(dtype),
                box_logits=output.box_logits[at].numpy(force=True).astype(dtype),
            )
            if number == 0:
                table.append(**output.grid_rows)


@dataclass(frozen=True)
class _Grid:
    centers: Tensor
    strides: Tensor
    level_sizes: tuple[int, ...]


class TableTeacher:
    """Says of a batch what a live teacher with `params` would be asked; selects from each image once.

    Args:
        folder: of a table whose floor is not above `params`.
    """

    def __init__(self, folder: Path, params: ERDParams, device: str) -> None:
        self._arrays = arrays = opened(folder)
        self._rows = Rows(arrays)
        self._starts = starts(arrays["counts"])
        self._params, self._device = params, device
        sizes = tuple(arrays["level_sizes"].tolist())
        self._grid: Grid = _Grid(torch.from_numpy(arrays["centers"]), torch.from_numpy(arrays["strides"]), sizes)
        self._selected: dict[int, tuple[Array, Array]] = {}

    def __call__(self, samples: Samples) -> Taught:
        """What the teacher says of the batch."""
        rows = self._rows(samples)
        if new := sorted({row for row in rows if row not in self._selected}):
            self._select(new)
        cls_image, cls_place, at_classes = self._gathered([self._selected[row][0] for row in rows])
        box_image, box_place, at_boxes = self._gathered([self._selected[row][1] for row in rows])
        return Taught(
            cls_image, cls_place, self._values("cls_logits", at_classes),
            box_image, box_place, self._values("box_logits", at_boxes), self._values("scores", at_boxes),
        )  # fmt: skip

    def _select(self, rows: list[int]) -> None:
        """Choose the responses of `rows` that a trial listens to, and remember where in the table they are."""
        image, kept = spans(self._starts, rows)
        at = image, torch.from_numpy(self._arrays["places"][kept]).long()
        shape = len(rows), sum(self._grid.level_sizes)

        def spread(name: str, otherwise: float) -> Tensor:
            values = torch.from_numpy(self._arrays[name][kept])
            return torch.full(shape, otherwise, dtype=values.dtype).index_put(at, values)

        index = torch.full(shape, -1).index_put(at, torch.from_numpy(kept))
        found = Responses(
            spread("scores", -torch.inf), spread("labels", 0).long(), spread("boxes", -torch.inf),
            torch.from_numpy(self._arrays["of_scores"][rows]), torch.from_numpy(self._arrays["of_boxes"][rows]),
        )  # fmt: skip
        logits = self._arrays["box_logits"]
        chosen = select(
            found, lambda image, place: torch.from_numpy(logits[index[image, place]]).float(), self._grid, self._params
        )
        boxes = index[chosen.box_image, chosen.box_place]
        for number, row in enumerate(rows):
            of_boxes = boxes[chosen.box_image == number].numpy()
            self._selected[row] = index[number][chosen.cls_mask[number]].numpy(), of_boxes

    def _gathered(self, parts: list[Array]) -> tuple[Tensor, Tensor, Array]:
        """Image and location (K,) of what is listened to in a batch, and where in the table it is."""
        counts, index = torch.tensor([len(part) for part in parts]), np.concatenate(parts)
        place = torch.from_numpy(self._arrays["places"][index]).long()
        return torch.arange(len(parts)).repeat_interleave(counts).to(self._device), place.to(self._device), index

    def _values(self, name: str, index: Array) -> Tensor:
        return torch.from_numpy(self._arrays[name][index]).float().to(self._device)
