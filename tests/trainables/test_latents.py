"""What a frozen backbone says, kept: quantised in a buffer, mixed with what is computed anew."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from mmdet.structures import DetDataSample
from torch import Tensor

from trainables.latents import LatentBuffer

CHANNELS, SIDES = (3, 5), (4, 2)


def replayed(step: int, image: int) -> DetDataSample:
    return DetDataSample(metainfo={"img_id": image, "step": step})


SAMPLES = [replayed(0, 7), replayed(0, 3), replayed(1, 7)]


def stages() -> list[Tensor]:
    """Of three images, channels of very different sizes."""
    drawn = torch.Generator().manual_seed(0)
    levels = [torch.randn(3, width, side, side, generator=drawn) for width, side in zip(CHANNELS, SIDES, strict=True)]
    return [level * 10.0 ** torch.arange(-2, level.shape[1] - 2)[:, None, None] for level in levels]


def buffer_of(dtype: str) -> LatentBuffer:
    first, second = [level[:2] for level in stages()], [level[2:] for level in stages()]
    return LatentBuffer([(SAMPLES[:2], first), (SAMPLES[2:], second)], dtype)


def all_close(found: Sequence[Tensor], expected: Sequence[Tensor], relative: float) -> bool:
    """Whether every channel of every image is as near as `relative` of its largest value."""
    pairs = zip(found, expected, strict=True)
    return all(bool(((a - b).abs() <= relative * b.abs().amax((2, 3), keepdim=True)).all()) for a, b in pairs)


@pytest.mark.parametrize(("dtype", "relative"), [("float32", 0.0), ("float16", 2**-11), ("int8", 0.501 / 127)])
def test_each_image_and_step_has_its_own_to_the_precision_of_the_type(dtype: str, relative: float) -> None:
    found = buffer_of(dtype)([SAMPLES[2], SAMPLES[0]])
    assert all_close(found, [level[[2, 0]] for level in stages()], relative)
    assert all(level.dtype == torch.float32 for level in found)


def test_a_channel_that_is_zero_stays_zero() -> None:
    levels = [torch.zeros(1, 3, 2, 2)]
    assert torch.equal(LatentBuffer([([SAMPLES[0]], levels)], "int8")([SAMPLES[0]])[0], levels[0])


def test_bytes_are_those_of_the_type_and_its_scales() -> None:
    numbers = sum(level.numel() for level in stages())
    assert buffer_of("float32").num_bytes == 4 * numbers
    assert buffer_of("float16").num_bytes == 2 * numbers
    assert buffer_of("int8").num_bytes == numbers + 4 * 3 * sum(CHANNELS)


def test_an_image_of_the_step_is_not_the_replayed_one() -> None:
    found = buffer_of("int8")
    assert found.holds(replayed(1, 7))
    assert not found.holds(replayed(2, 7))
    assert not found.holds(DetDataSample(metainfo={"img_id": 7}))
