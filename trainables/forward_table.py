"""All that a teacher says of a step's training images in a table, for methods that listen everywhere.

A trial reads of it what a batch needs, to the bit what a live teacher would have told it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.detectors.forward import LOGITS, CodedForward, Forward, Samples, rounded
from trainables.tables import Rows, TableWriter, opened, row_keys


def write_forwards(
    folder: Path, batches: Iterable[tuple[Samples, Forward]], features: Sequence[str], dtype: str
) -> None:
    """Write the logits and the `features` of every image of `batches`."""
    with TableWriter(folder) as table:
        for number, (samples, output) in enumerate(batches):
            output = rounded(output, dtype)
            levels = {
                f"{name}-{level}": value for name in features for level, value in enumerate(output.features[name])
            }
            said = output.logits | levels
            rows = {
                name: value.float().numpy(force=True).astype(dtype)  # numpy knows no bfloat16
                for name, value in said.items()
            }
            table.append(**row_keys(samples), **rows)
            if number == 0:
                table.append(
                    **output.grid_rows,
                    anchor_side=np.array([output.anchor_side]),
                )


class ForwardTable:
    """Gives what `write_forwards` wrote, as a live teacher's forward pass would be."""

    def __init__(self, folder: Path, features: Sequence[str], device: str) -> None:
        self._arrays, self._device = opened(folder), device
        self._rows = Rows(self._arrays)
        self._levels = tuple(self._arrays["level_sizes"].tolist())
        self._features = {name: [f"{name}-{level}" for level in range(len(self._levels))] for name in features}
        self._centers, self._strides = (torch.from_numpy(self._arrays[name]) for name in ("centers", "strides"))

    def __call__(self, samples: Samples) -> Forward:
        """What the teacher says of a batch."""
        rows = self._rows(samples)

        def said(name: str) -> Tensor:
            return torch.from_numpy(self._arrays[name][rows]).float().to(self._device)

        logits: dict[str, Any] = {name: said(name) for name in LOGITS if name in self._arrays}
        kind = CodedForward if "obj_logits" in logits else Forward
        return kind(
            **logits,
            centers=self._centers.to(self._device),
            strides=self._strides.to(self._device),
            level_sizes=self._levels,
            features={name: [said(level) for level in levels] for name, levels in self._features.items()},
            anchor_side=float(self._arrays["anchor_side"][0]),
        )
