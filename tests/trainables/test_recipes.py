"""The rule for the learning rate, and the line that tells it."""

from __future__ import annotations

import pytest

from trainables.recipes import GFL_1X, TINY, lr_line, scaled_lr


@pytest.mark.parametrize(
    ("images", "devices", "expected"), [(2, 8, 0.01), (16, 1, 0.01), (3, 1, 0.001875), (2, 1, 0.00125), (4, 8, 0.02)]
)
def test_gfl_learns_at_a_hundredth_for_sixteen_images(images: int, devices: int, expected: float) -> None:
    assert scaled_lr(GFL_1X, 1.0, images, devices) == pytest.approx(expected, rel=1e-12)
    assert scaled_lr(GFL_1X, 0.5, images, devices) == pytest.approx(expected / 2, rel=1e-12)


def test_the_rule_is_told_with_its_numbers() -> None:
    assert lr_line(TINY, 2.0, 8) == "learning rate 0.004 = lr_scale 2 x 0.004 x (8 images x 1 device / 16)"
    assert lr_line(TINY, 2.0, 8, rule="none") == (
        "learning rate 0.008 = lr_scale 2 x 0.004, whatever the batch (lr_rule: none)"
    )
    assert lr_line(GFL_1X, 1.0, 2, 8) == "learning rate 0.01 = lr_scale 1 x 0.01 x (2 images x 8 devices / 16)"
