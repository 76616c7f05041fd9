"""The outputs of a frozen backbone, computed once: of a step's images in a table, of replayed images in a buffer.

Source of latent replay: Pasti et al., ECCV workshops 2024, arXiv 2409.01872, which plots it and releases no code of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from mmdet.structures import DetDataSample
from torch import Tensor

from trainables.detectors.forward import Samples
from trainables.tables import Rows, TableWriter, opened, row_keys

Stages = Sequence[Tensor]
"""One (B, channels, H, W) a stage of the backbone."""
LEVELS = 127
"""Of an int8 on either side of zero."""


class Latents(Protocol):
    """Holds the stages of some images."""

    def holds(self, sample: DetDataSample) -> bool:
        """Whether it has those of this sample."""

    def __call__(self, samples: Samples) -> Stages:
        """The stages of samples that it holds."""


def gathered(sources: Sequence[Latents], samples: Samples, run: Callable[[list[int]], Stages]) -> Stages:
    """The stages of a batch, each sample's from the first source that holds it.

    Args:
        run: gives the stages of the samples at the places that no source holds.
    """
    parts, order = [], []
    left = list(range(len(samples)))
    for source in sources:
        if own := [place for place in left if source.holds(samples[place])]:
            parts.append(source([samples[place] for place in own]))
            order += own
            left = [place for place in left if place not in own]
    if left:
        parts.append(run(left))
        order += left
    if len(parts) == 1:
        return parts[0]
    back = torch.tensor(order).argsort().to(parts[0][0].device)
    together = (torch.cat(stage)[back] for stage in zip(*parts, strict=True))
    return [stage.contiguous(memory_format=torch.channels_last) for stage in together]


def write_latents(folder: Path, batches: Iterable[tuple[Samples, Stages]]) -> None:
    """Write the stages of every image of `batches`, channels last."""
    with TableWriter(folder) as table:
        for samples, stages in batches:
            rows = {f"stage-{number}": _channels_last(stage).numpy(force=True) for number, stage in enumerate(stages)}
            table.append(**row_keys(samples), **rows)


class LatentTable:
    """Gives what `write_latents` wrote, as the backbone would."""

    def __init__(self, folder: Path, device: str) -> None:
        arrays = opened(folder)
        self._rows, self._device = Rows(arrays), device
        self._stages = [arrays[f"stage-{number}"] for number in range(len(arrays) - 2)]

    def holds(self, sample: DetDataSample) -> bool:
        """Whether the sample's image is in the table."""
        return sample in self._rows

    def __call__(self, samples: Samples) -> Stages:
        """The stages of a batch."""
        rows = self._rows(samples)
        return [torch.from_numpy(stage[rows]).to(self._device).permute(0, 3, 1, 2) for stage in self._stages]


class LatentBuffer:
    """The stages of replayed images in place of the images, in memory.

    Args:
        batches: samples of earlier steps, which say their `step`, and their stages.
        dtype: `float32`, `float16`, or `int8` with a scale for each image and channel.
    """

    def __init__(self, batches: Iterable[tuple[Samples, Stages]], dtype: str) -> None:
        self._rows: dict[tuple[int | None, int | None], int] = {}
        parts = []
        for samples, stages in batches:
            for sample in samples:
                self._rows[_key(sample)] = len(self._rows)
            parts.append([_coded(_channels_last(stage), dtype) for stage in stages])
        by_stage = list(zip(*parts, strict=True))
        self._values = [torch.cat([values for values, _ in stage]) for stage in by_stage]
        self._scales = [torch.cat([scales for _, scales in stage]) for stage in by_stage]

    @property
    def num_bytes(self) -> int:
        """What is held."""
        held = (*self._values, *self._scales) if self._values[0].dtype == torch.int8 else self._values
        return sum(tensor.numel() * tensor.element_size() for tensor in held)

    def holds(self, sample: DetDataSample) -> bool:
        """Whether the sample is a replayed one."""
        return _key(sample) in self._rows

    def __call__(self, samples: Samples) -> Stages:
        """The stages of a batch."""
        rows = [self._rows[_key(sample)] for sample in samples]
        stages = zip(self._values, self._scales, strict=True)
        return [(values[rows].float() * scales[rows]).permute(0, 3, 1, 2) for values, scales in stages]


def _key(sample: DetDataSample) -> tuple[int | None, int | None]:
    return sample.get("step"), sample.get("img_id")


def _channels_last(stage: Tensor) -> Tensor:
    return stage.detach().float().permute(0, 2, 3, 1)


def _coded(stage: Tensor, dtype: str) -> tuple[Tensor, Tensor]:
    """A stage (B, H, W, channels) in `dtype`, and what it is to be multiplied with, (B, 1, 1, channels)."""
    if dtype != "int8":
        return stage.to(getattr(torch, dtype)), torch.ones(len(stage), 1, 1, 1, device=stage.device)
    scales = (stage.abs().amax((1, 2), keepdim=True) / LEVELS).clamp(min=torch.finfo(torch.float32).tiny)
    return (stage / scales).round().to(torch.int8), scales
