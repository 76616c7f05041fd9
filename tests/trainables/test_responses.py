"""From a table kept for the loosest thresholds, every trial gets to the bit what a live teacher would tell it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample

from search_spaces.erd import PRESETS, ERDParams
from tests.trainables.batches import forward_pass
from tests.trainables.distiller_contract import NUM_CLASSES, NUM_OLD, OLD, pick
from trainables.detectors.forward import Forward, Samples, rounded
from trainables.distillation.erd import ERD, Taught, taught
from trainables.responses import TableTeacher, write_responses

NUM_IMAGES = 6
LOOSE = ERDParams(alpha_cls=0.5, alpha_box=0.75)
FAMILIES: dict[str, tuple[ERDParams, list[ERDParams]]] = {
    "elastic": (LOOSE, [LOOSE, ERDParams(), ERDParams(alpha_cls=3.5, alpha_box=1.25), ERDParams(alpha_box=3.5)]),
    "per_level": (
        replace(LOOSE, stat_scope="per_level"),
        [ERDParams(stat_scope="per_level"), ERDParams(stat_scope="per_level", alpha_cls=0.5, alpha_box=1.0)],
    ),
    "max_prob": (
        replace(LOOSE, box_response="max_prob"),
        [ERDParams(box_response="max_prob", alpha_box=alpha) for alpha in (0.75, 1.5)],
    ),
    "mean_edge_max": (
        replace(LOOSE, box_response="mean_edge_max"),
        [ERDParams(box_response="mean_edge_max", alpha_box=alpha) for alpha in (0.75, 1.5)],
    ),
    "fixed_thr": (
        ERDParams(select="fixed_thr", thr=0.05),
        [ERDParams(select="fixed_thr", thr=thr) for thr in (0.05, 0.2, 0.5)],
    ),
    "topk": (ERDParams(select="topk", topk=70), [ERDParams(select="topk", topk=count) for count in (70, 50)]),
    "topk of all": (ERDParams(select="topk", topk=1000), [ERDParams(select="topk", topk=c) for c in (1000, 84, 60)]),
    "all": (ERDParams(select="all"), [ERDParams(select="all", nms_iou=0.6)]),
    "presets": (ERDParams(), list(PRESETS.values())),
    "how boxes are thinned": (
        LOOSE,
        [replace(LOOSE, nms_iou=iou, decode_with_stride=px) for iou in (0.001, 0.3, 0.6) for px in (False, True)],
    ),
}
every_family = pytest.mark.parametrize(("floor", "trials"), FAMILIES.values(), ids=FAMILIES)


def samples(rows: list[int]) -> Samples:
    """The images of the rows of `said`: first as they are, then flipped."""
    return [DetDataSample(metainfo={"img_id": 900 - row % NUM_IMAGES, "flip": row >= NUM_IMAGES}) for row in rows]


def said(dtype: str = "float32") -> Forward:
    """What a teacher says of every image and flip."""
    return rounded(forward_pass(2 * NUM_IMAGES, NUM_OLD, 4), dtype)


def written(folder: Path, whole: Forward, floor: ERDParams, dtype: str = "float32") -> Path:
    """The folder with the table of `whole`, written in batches of which the last is smaller."""
    rows = list(range(len(whole.cls_logits)))
    batches = [rows[start : start + 5] for start in range(0, len(rows), 5)]
    write_responses(folder, ((samples(batch), pick(whole, batch)) for batch in batches), floor, dtype)
    return folder


def orders() -> Iterator[list[int]]:
    drawn = np.random.default_rng(1)
    yield from ([row] for row in range(2 * NUM_IMAGES))
    yield from (drawn.permutation(2 * NUM_IMAGES)[:count].tolist() for count in (2, 5, 7, 12, 12))
    yield [3, 3, 9]


def assert_same(found: Taught, expected: Taught) -> None:
    for name, value in vars(expected).items():
        assert getattr(found, name).dtype == value.dtype
        assert torch.equal(getattr(found, name), value), name


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@every_family
def test_a_trial_hears_what_a_live_teacher_would_say(
    floor: ERDParams, trials: list[ERDParams], dtype: str, tmp_path: Path
) -> None:
    live = said(dtype)
    written(tmp_path, said(), floor, dtype)
    for params in trials:
        teacher = TableTeacher(tmp_path, params, "cpu")
        for rows in orders():
            assert_same(teacher(samples(rows)), taught(pick(live, rows), params))
        assert len(teacher(samples(list(range(2 * NUM_IMAGES)))).box_image) > 0


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@every_family
def test_losses_and_gradients_are_the_same(
    floor: ERDParams, trials: list[ERDParams], dtype: str, tmp_path: Path
) -> None:
    live, rows = said(dtype), [4, 11, 0]
    written(tmp_path, said(), floor, dtype)
    for params in trials:
        found, expected = [
            losses_and_gradient(params, teacher)
            for teacher in (TableTeacher(tmp_path, params, "cpu")(samples(rows)), pick(live, rows))
        ]
        assert found == expected


def losses_and_gradient(params: ERDParams, teacher: Forward | Taught) -> tuple[dict[str, float], list[float]]:
    student = forward_pass(3, NUM_CLASSES, 1)
    student.cls_logits.requires_grad_()
    losses = ERD(params)(student, teacher, OLD, ())
    losses["loss_dist_cls"].backward()
    gradient = student.cls_logits.grad
    assert gradient is not None
    return {name: value.item() for name, value in losses.items()}, gradient.flatten().tolist()


def test_of_equal_responses_both_take_the_same(tmp_path: Path) -> None:
    whole = said()
    whole.cls_logits.round_()
    whole.box_logits.round_()
    written(tmp_path, whole, ERDParams(select="topk", topk=70))
    for count in (50, 60, 70):
        params = ERDParams(select="topk", topk=count)
        teacher = TableTeacher(tmp_path, params, "cpu")
        for rows in orders():
            assert_same(teacher(samples(rows)), taught(pick(whole, rows), params))


def test_half_the_digits_are_half_the_size_and_other_numbers(tmp_path: Path) -> None:
    for dtype in ("float32", "float16"):
        (tmp_path / dtype).mkdir()
        written(tmp_path / dtype, said(), LOOSE, dtype)
    sizes = {dtype: (tmp_path / dtype / "box_logits.bin").stat().st_size for dtype in ("float32", "float16")}
    assert sizes["float16"] <= 0.55 * sizes["float32"]
    rough, exact = (TableTeacher(tmp_path / dtype, ERDParams(), "cpu")(samples([0])) for dtype in sizes)
    assert not torch.equal(rough.cls_logits, exact.cls_logits)
    torch.testing.assert_close(rough.cls_logits, exact.cls_logits, rtol=1e-3, atol=1e-3)


def test_a_table_holds_what_its_floor_needs_and_no_more(tmp_path: Path) -> None:
    sizes = []
    for number, floor in enumerate((ERDParams(select="all"), LOOSE, ERDParams())):
        (tmp_path / str(number)).mkdir()
        written(tmp_path / str(number), said(), floor)
        sizes.append((tmp_path / str(number) / "box_logits.bin").stat().st_size)
    assert sizes[0] == said().box_logits.numel() * 4
    assert sizes[0] > 1.5 * sizes[1] > 2 * sizes[2] > 0


def test_images_of_which_nothing_stands_out_are_silent(tmp_path: Path) -> None:
    whole = said()
    whole.cls_logits[[0, 7]] = -3.0
    whole.box_logits[[0, 7]] = 1.0
    written(tmp_path, whole, LOOSE)
    teacher = TableTeacher(tmp_path, ERDParams(), "cpu")
    for rows in ([0], [0, 7], [7, 1, 0]):
        assert_same(teacher(samples(rows)), taught(pick(whole, rows), ERDParams()))
    assert len(teacher(samples([0, 7])).cls_image) == 0


def test_a_level_of_one_location_has_no_deviation(tmp_path: Path) -> None:
    params = ERDParams(stat_scope="per_level", alpha_cls=0.5, alpha_box=0.5)
    whole = replace(said(), level_sizes=(80, 3, 1))
    written(tmp_path, whole, params)
    assert_same(TableTeacher(tmp_path, params, "cpu")(samples([2, 5])), taught(pick(whole, [2, 5]), params))


def test_what_is_heard_on_another_device_is_there(tmp_path: Path) -> None:
    written(tmp_path, said(), LOOSE)
    heard = TableTeacher(tmp_path, ERDParams(), "meta")(samples([1, 2]))
    assert {value.device.type for value in vars(heard).values()} == {"meta"}
