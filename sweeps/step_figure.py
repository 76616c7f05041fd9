"""The static picture of a chain so far, for the run of its last step: what is remembered, and what is learnt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES = {"ap_all": ("all", "tab:gray"), "ap_old": ("old", "tab:blue"), "ap_new": ("new", "tab:orange")}
"""The metrics that are drawn against the step, what they are called, and their colours."""
MAX_ACROSS = 12  # names of classes that have room beside each other
MAX_CELLS = 200  # with more, their numbers cannot be read


def ap_points(ap: Sequence[Sequence[float | None]], num_classes: int) -> list[list[float]]:
    """AP by step and class in COCO points; nan where there is none, and for classes that are still to come."""
    return [
        [math.nan if value is None else 100 * value for value in (*row, *[None] * (num_classes - len(row)))]
        for row in ap
    ]


def step_figure(
    classes: Sequence[str], ap: Sequence[Sequence[float | None]], curves: Mapping[str, Sequence[float]]
) -> Figure:
    """AP by step and class, and the means over all, old and new classes by step, in COCO points.

    Args:
        classes: of the whole scenario.
        ap: fractions; a row a step, a column a class seen by then; None where there is none.
        curves: the values of `CURVES` after each step, as fractions; nan where there is none.
    """
    from matplotlib.figure import Figure

    upright = len(classes) > MAX_ACROSS
    figure = Figure(figsize=(12, 4.4 if upright else 3.6))  # matplotlib's own layout would cost three times the drawing
    figure.subplots_adjust(left=0.08, right=0.985, top=0.91, bottom=0.34 if upright else 0.13, wspace=0.08)
    left, right = figure.subplots(1, 2, width_ratios=[2, 1])
    steps = range(1, len(ap) + 1)
    cells = ap_points(ap, len(classes))
    drawn = left.imshow(cells, aspect="auto", cmap="viridis", vmin=0, vmax=100)
    figure.colorbar(drawn, ax=left, pad=0.015)
    left.set_title("AP by step and class")
    left.set_xticks(range(len(classes)), list(classes), rotation=90 if upright else 0, parse_math=False)
    left.set_yticks(range(len(ap)), [f"after step {step}" for step in steps])
    if len(cells) * len(classes) <= MAX_CELLS:
        for y, row in enumerate(cells):
            for x, value in enumerate(row):
                if not math.isnan(value):
                    left.text(x, y, f"{value:.0f}", ha="center", va="center", color="white" if value < 60 else "black")
    for name, (label, color) in CURVES.items():
        right.plot(steps, [100 * value for value in curves[name]], marker="o", color=color, label=f"{label} classes")
    right.set_title("AP by step")
    right.set_xticks(steps)
    right.set_xlabel("step")
    right.set_ylim(0, 110 * max((v for values in curves.values() for v in values if v > 0), default=1.0))
    right.grid(alpha=0.3)
    right.legend()
    return figure
