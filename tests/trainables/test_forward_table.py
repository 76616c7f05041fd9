"""All that a teacher says, in a table: as a live teacher would say it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample

from tests.trainables.batches import forward_pass
from tests.trainables.distiller_contract import NUM_OLD, pick
from trainables.detectors.forward import Forward, Samples, rounded
from trainables.forward_table import ForwardTable, write_forwards

NUM_IMAGES = 6


def samples(rows: list[int]) -> Samples:
    """The images of the rows of `said`: first as they are, then flipped."""
    return [DetDataSample(metainfo={"img_id": 90 - row % NUM_IMAGES, "flip": row >= NUM_IMAGES}) for row in rows]


def written(folder: Path, features: tuple[str, ...], dtype: str) -> Forward:
    whole = forward_pass(2 * NUM_IMAGES, NUM_OLD, 4)
    batches = [list(range(start, min(start + 5, 2 * NUM_IMAGES))) for start in range(0, 2 * NUM_IMAGES, 5)]
    write_forwards(folder, ((samples(rows), pick(whole, rows)) for rows in batches), features, dtype)
    return rounded(whole, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("features", [(), ("cls_tower", "reg_tower"), ("fpn",)])
def test_a_trial_hears_what_a_live_teacher_would_say(tmp_path: Path, features: tuple[str, ...], dtype: str) -> None:
    live = written(tmp_path, features, dtype)
    teacher = ForwardTable(tmp_path, features, "cpu")
    drawn = np.random.default_rng(0)
    for rows in ([3], [3, 3, 9], drawn.permutation(2 * NUM_IMAGES).tolist()):
        found, expected = teacher(samples(rows)), pick(live, rows)
        for name in ("cls_logits", "box_logits", "centers", "strides"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), name
        assert (found.level_sizes, found.anchor_side) == (expected.level_sizes, expected.anchor_side)
        assert set(found.features) == set(features)
        for name, levels in found.features.items():
            assert all(map(torch.equal, levels, expected.features[name]))


def test_half_the_digits_are_half_the_size(tmp_path: Path) -> None:
    sizes = []
    for dtype in ("float32", "float16"):
        folder = tmp_path / dtype
        folder.mkdir()
        written(folder, ("fpn",), dtype)
        sizes.append(sum(file.stat().st_size for file in folder.glob("*-*.bin")))
    assert sizes[0] == 2 * sizes[1] > 0
