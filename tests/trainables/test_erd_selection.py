"""Where ERD listens to the teacher: thresholds, statistics, the best of each image, suppression."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from search_spaces.erd import PRESETS, ERDParams
from tests.trainables.batches import forward_pass
from tests.trainables.distiller_contract import NUM_OLD, learning, pick, total
from tests.trainables.erd_passes import batch, distilled, masks
from trainables.detectors.forward import Forward
from trainables.distillation.erd import box_response, elastic_mask, statistics, taught, teacher_boxes


def elastic(responses_BN: Tensor, alpha: float, parts: tuple[int, ...]) -> Tensor:
    return elastic_mask(responses_BN, alpha, statistics(responses_BN, parts), parts)


def constant(teacher: Forward, value: float) -> Forward:
    return replace(
        teacher,
        cls_logits=torch.full_like(teacher.cls_logits, value),
        box_logits=torch.full_like(teacher.box_logits, value),
    )


def single(output: Forward) -> Forward:
    return Forward(output.cls_logits[:, :1], output.box_logits[:, :1], output.centers[:1], output.strides[:1], (1,))


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("case", ["far threshold", "equal responses", "one location"])
def test_nothing_selected_is_zero_with_a_finite_gradient(preset: str, case: str) -> None:
    params = PRESETS[preset]
    student, teacher = batch()
    if case == "far threshold":
        params = replace(params, alpha_cls=100.0, alpha_box=100.0)
    elif case == "equal responses":
        teacher = constant(teacher, 0.3)
    else:
        student, teacher = learning(single(student)), single(teacher)
    found = distilled(params, student, teacher)
    assert found == dict.fromkeys(("loss_dist_cls", "loss_dist_bbox", "n_sel_cls", "n_sel_box"), 0)
    gradients = torch.autograd.grad(total(found), [student.cls_logits, student.box_logits])
    assert all((gradient == 0).all() for gradient in gradients)


def test_an_image_without_selection_counts_as_zero_beside_others() -> None:
    student, teacher = batch()
    known = replace(
        teacher,
        cls_logits=torch.stack([teacher.cls_logits[0] * 0, teacher.cls_logits[1]]),
        box_logits=torch.stack([teacher.box_logits[0] * 0, teacher.box_logits[1]]),
    )
    alone = distilled(ERDParams(), pick(student, [1]), pick(known, [1]))
    for reduction, share in (("mean_images", 0.5), ("sum_images", 1.0), ("concat_mean", 1.0)):
        found = distilled(ERDParams(cls_reduction=reduction), student, known)
        assert found["loss_dist_cls"].item() == pytest.approx(share * alone["loss_dist_cls"].item(), rel=1e-6)
    assert distilled(ERDParams(), student, known)["n_sel_cls"].item() == alone["n_sel_cls"].item() / 2


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 3.5])
def test_equal_responses_select_nothing_however_their_mean_is_rounded(alpha: float) -> None:
    drawn = torch.rand(300, generator=torch.Generator().manual_seed(0)) * 6
    for count in (84, 336, 20_000):
        assert not elastic(drawn[:, None].expand(-1, count).contiguous(), alpha, (count,)).any()


def test_the_threshold_is_strict_and_taken_by_image_or_by_level() -> None:
    responses = torch.tensor([[0.0, 0.0, 0.0, 4.0, 9.0, 9.0, 9.0, 17.0]])
    # image: mean 6, std 6.07; first level: mean 1, std 2; second level: mean 11, std 4
    assert elastic(responses, 1.5, (8,)).tolist() == [[False] * 7 + [True]]
    assert elastic(responses, 1.5, (4, 4)).tolist() == [[False] * 4 + [False] * 4]
    assert elastic(responses, 1.4, (4, 4)).tolist() == [[False] * 3 + [True] + [False] * 3 + [True]]


def test_statistics_are_of_the_image_or_of_each_level() -> None:
    teacher = forward_pass(2, NUM_OLD)
    louder = teacher.cls_logits.clone()
    louder[:, teacher.level_sizes[0] :] += 6  # the smaller levels shout
    teacher = replace(teacher, cls_logits=louder)
    by_image, by_level = (masks(teacher, ERDParams(stat_scope=scope))[0] for scope in ("all_levels", "per_level"))
    assert not by_image[:, : teacher.level_sizes[0]].any()
    assert by_level[:, : teacher.level_sizes[0]].any(1).all()


def test_a_box_responds_by_its_largest_logit_or_probability_or_by_its_edges() -> None:
    logits = torch.zeros(1, 1, 8)  # four edges with two bins each
    logits[0, 0] = torch.tensor([3.0, 1.0, 5.0, 5.0, -1.0, -4.0, 0.0, 2.0])
    assert box_response(logits, "max_logit").item() == 5
    assert box_response(logits, "max_prob").item() == pytest.approx(1 / (1 + math.exp(-3)))  # the third edge
    assert box_response(logits, "mean_edge_max").item() == pytest.approx((3 + 5 - 1 + 2) / 4)


def test_without_the_stride_boxes_are_small_and_more_of_them_stay() -> None:
    teacher = forward_pass(2, NUM_OLD)
    with_stride, without = (
        taught(teacher, ERDParams(alpha_box=0.5, decode_with_stride=flag)) for flag in (True, False)
    )
    assert len(without.box_image) > len(with_stride.box_image)
    image, place = without.box_image, without.box_place
    one, other = (teacher_boxes(teacher.box_logits[image, place], place, teacher, flag) for flag in (True, False))
    sizes = [boxes[:, 2:] - boxes[:, :2] for boxes in (one, other)]
    torch.testing.assert_close(sizes[0], sizes[1] * teacher.strides[place, None])


@pytest.mark.parametrize("topk", [50, 1000])
def test_topk_keeps_so_many_of_each_image_or_all(topk: int) -> None:
    teacher = forward_pass(2, NUM_OLD)
    for mask in masks(teacher, ERDParams(select="topk", topk=topk)):
        assert mask.sum(1).tolist() == [min(topk, mask.shape[1])] * 2
    scores = teacher.cls_logits.sigmoid().amax(-1)
    mask = masks(teacher, ERDParams(select="topk", topk=50))[0]
    assert scores[0][mask[0]].min() > scores[0][~mask[0]].max()


def test_a_fixed_threshold_is_a_probability() -> None:
    teacher = forward_pass(2, NUM_OLD)
    cls_mask, box_mask = masks(teacher, ERDParams(select="fixed_thr", thr=0.4))
    assert torch.equal(cls_mask, teacher.cls_logits.sigmoid().amax(-1) > 0.4)
    assert torch.equal(box_mask, cls_mask)
    assert 0 < cls_mask.sum() < cls_mask.numel()


def test_suppression_is_per_image_and_per_class() -> None:
    """Three boxes at one place: of the same class one stays, of another class or image each."""
    teacher = forward_pass(2, NUM_OLD)
    cls_logits = torch.full_like(teacher.cls_logits, -9.0)
    centers = teacher.centers.clone()
    centers[:3] = 32.0
    cls_logits[:, 0, 0], cls_logits[:, 1, 0], cls_logits[:, 2, 1] = 3.0, 2.0, 1.0
    known = replace(teacher, cls_logits=cls_logits, box_logits=torch.zeros_like(teacher.box_logits), centers=centers)
    chosen = taught(known, ERDParams(select="fixed_thr", thr=0.5))
    assert list(zip(chosen.box_image.tolist(), chosen.box_place.tolist(), strict=True)) == [
        (0, 0), (0, 2), (1, 0), (1, 2)
    ]  # fmt: skip


def test_counts_are_means_per_image() -> None:
    student, teacher = batch(3)
    found, chosen = distilled(ERDParams(), student, teacher), taught(teacher, ERDParams())
    assert found["n_sel_cls"].item() == pytest.approx(len(chosen.cls_image) / 3)
    assert found["n_sel_box"].item() == pytest.approx(len(chosen.box_image) / 3)
