"""Zoom and shift about the centre: pixels and boxes together."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes

from trainables.datasets.transforms import CenteredAffine

HEIGHT, WIDTH = 60, 80


def scene() -> dict[str, object]:
    """A white rectangle in the centre, and its box."""
    img = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    img[20:40, 30:50] = 255
    return {
        "img": img,
        "img_shape": img.shape[:2],
        "gt_bboxes": HorizontalBoxes(torch.tensor([[30.0, 20.0, 50.0, 40.0]])),
        "gt_bboxes_labels": np.array([3]),
        "gt_ignore_flags": np.array([False]),
    }


def box_of(results: dict[str, object]) -> list[float]:
    return results["gt_bboxes"].tensor[0].tolist()


@pytest.mark.parametrize("scale", [0.6, 1.4])
def test_a_zoom_keeps_the_centre(scale: float) -> None:
    results = CenteredAffine(scale=(scale, scale), translate=0.0)(scene())
    half = 10 * scale
    assert box_of(results) == pytest.approx([40 - half, 30 - half, 40 + half, 30 + half], abs=1e-3)
    assert results["img"].shape == (HEIGHT, WIDTH, 3)


def test_boxes_go_where_the_pixels_go() -> None:
    for seed in range(20):
        random.seed(seed)
        results = CenteredAffine(scale=(0.6, 1.4), translate=0.2)(scene())
        rows, columns = np.nonzero(results["img"][..., 0] > 127)
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert box_of(results) == pytest.approx(seen, abs=1.5)
