from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from search_spaces.distributions import Choice
from search_spaces.erd import PRESETS, ERDParams
from search_spaces.params import params_of
from tests.trainables.batches import REG_MAX, forward_pass
from tests.trainables.distiller_contract import (
    NUM_CLASSES,
    NUM_OLD,
    OLD,
    DistillerContract,
    agreeing,
    learning,
    pick,
    total,
    truth,
)
from trainables.detectors.forward import Distiller, Forward
from trainables.distillation.divergence import kl_rows
from trainables.distillation.erd import (
    ERD,
    box_response,
    candidates,
    class_terms,
    elastic_mask,
    per_image_box,
    per_image_class,
    responses,
    statistics,
    taught,
    teacher_boxes,
)

CATEGORICAL = [
    (name, value)
    for name, param in params_of(ERDParams).items()
    if isinstance(param.distribution, Choice)
    for value in param.distribution.values
]


def distilled(params: ERDParams, student: Forward, teacher: Forward) -> dict[str, Tensor]:
    return ERD(params)(student, teacher, OLD, truth(len(teacher.cls_logits)))


def masks(teacher: Forward, params: ERDParams) -> tuple[Tensor, Tensor]:
    """Where a teacher is listened to for classes and, before NMS, for boxes."""
    return candidates(responses(teacher, params), teacher.level_sizes, params)


def elastic(responses_BN: Tensor, alpha: float, parts: tuple[int, ...]) -> Tensor:
    return elastic_mask(responses_BN, alpha, statistics(responses_BN, parts), parts)


def batch(count: int = 2) -> tuple[Forward, Forward]:
    return learning(forward_pass(count, NUM_CLASSES, 1)), forward_pass(count, NUM_OLD, 2)


class TestERD(DistillerContract):
    @pytest.fixture(params=sorted(PRESETS))
    def distiller(self, request: pytest.FixtureRequest) -> Distiller:
        return ERD(PRESETS[request.param])


class TestERDOnAllLocations(DistillerContract):
    @pytest.fixture
    def distiller(self) -> Distiller:
        return ERD(ERDParams(select="all", nms_iou=0.6))


def test_there_are_categorical_choices_to_turn() -> None:
    assert len({name for name, _ in CATEGORICAL}) >= 10


@pytest.mark.parametrize(("name", "value"), CATEGORICAL)
def test_every_choice_runs_learns_and_rests_where_student_and_teacher_agree(name: str, value: object) -> None:
    params = replace(ERDParams(alpha_cls=1.0, alpha_box=1.0), **{name: value})
    student, teacher = learning(forward_pass(2, NUM_CLASSES, 1)), learning(forward_pass(2, NUM_OLD, 2))
    found = distilled(params, student, teacher)
    assert all(torch.isfinite(loss) for loss in found.values())
    gradients = torch.autograd.grad(total(found), [student.cls_logits, student.box_logits])
    assert all(torch.isfinite(gradient).all() and gradient.abs().sum() > 0 for gradient in gradients)
    of_teacher = [teacher.cls_logits, teacher.box_logits]
    again = total(distilled(params, student, teacher))
    assert torch.autograd.grad(again, of_teacher, allow_unused=True) == (None, None)
    assert total(distilled(params, agreeing(teacher), teacher)).item() == pytest.approx(0, abs=1e-6)


# The slow derivation: the formulas of the paper's code, one number after another.


def elastic_places(responses: list[float], alpha: float) -> list[int]:
    mean = sum(responses) / len(responses)
    deviation = math.sqrt(sum((r - mean) ** 2 for r in responses) / (len(responses) - 1))
    return [place for place, response in enumerate(responses) if response > mean + alpha * deviation]


def softened(logits: list[float], temperature: float) -> list[float]:
    powers = [math.exp(logit / temperature) for logit in logits]
    return [power / sum(powers) for power in powers]


def slow_kl(student: list[float], teacher: list[float], temperature: float) -> float:
    p, q = softened(student, temperature), softened(teacher, temperature)
    return temperature**2 * sum(b * (math.log(b) - math.log(a)) for a, b in zip(p, q, strict=True)) / len(p)


def overlap(one: list[float], other: list[float]) -> float:
    width, height = (max(min(one[k + 2], other[k + 2]) - max(one[k], other[k]), 0) for k in (0, 1))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / (areas - width * height)


def slow_teacher_box(teacher: Forward, image: int, place: int) -> list[float]:
    edges = teacher.box_logits[image, place].tolist()
    bins = REG_MAX + 1
    distances = [
        sum(j * p for j, p in enumerate(softened(edges[edge * bins : (edge + 1) * bins], 1))) for edge in range(4)
    ]
    (x, y), stride = teacher.centers[place].tolist(), teacher.strides[place].item()
    left, top, right, bottom = (distance * stride for distance in distances)
    return [x - left, y - top, x + right, y + bottom]


def slow_image(student: Forward, teacher: Forward, image: int, params: ERDParams) -> tuple[float, float]:
    """D_cls and D_box of one image."""
    logits = teacher.cls_logits[image].tolist()
    scores = [1 / (1 + math.exp(-max(row))) for row in logits]
    of_student = student.cls_logits[image].tolist()
    chosen = elastic_places(scores, params.alpha_cls)
    pairs = [(of_student[i][c], logits[i][c]) for i in chosen for c in range(NUM_OLD)]
    d_cls = sum((s - t) ** 2 for s, t in pairs) / len(pairs)

    waiting = elastic_places([max(row) for row in teacher.box_logits[image].tolist()], params.alpha_box)
    waiting.sort(key=lambda place: -scores[place])
    kept: list[int] = []
    for place in waiting:
        rivals = [k for k in kept if logits[k].index(max(logits[k])) == logits[place].index(max(logits[place]))]
        box = slow_teacher_box(teacher, image, place)
        if all(overlap(box, slow_teacher_box(teacher, image, rival)) <= params.nms_iou for rival in rivals):
            kept.append(place)
    d_box, bins = 0.0, REG_MAX + 1
    for place in kept:
        weight = max(1 / (1 + math.exp(-logit)) for logit in of_student[place][:NUM_OLD])
        s, t = student.box_logits[image, place].tolist(), teacher.box_logits[image, place].tolist()
        edges = [slice(edge * bins, (edge + 1) * bins) for edge in range(4)]
        d_box += 0.25 * sum(weight * slow_kl(s[edge], t[edge], params.T) for edge in edges) / 4
    return d_cls, d_box


@pytest.mark.parametrize("params", [ERDParams(), ERDParams(alpha_cls=0.5, alpha_box=0.5, nms_iou=0.3, T=2)])
def test_equals_a_derivation_in_loops(params: ERDParams) -> None:
    student, teacher = batch(3)
    slow = [slow_image(student, teacher, image, params) for image in range(3)]
    assert len(taught(teacher, params).box_image) < masks(teacher, params)[1].sum()  # the NMS has work to do
    found = distilled(params, student, teacher)
    assert found["loss_dist_cls"].item() == pytest.approx(sum(d_cls for d_cls, _ in slow) / 3, rel=1e-5)
    assert found["loss_dist_bbox"].item() == pytest.approx(sum(d_box for _, d_box in slow) / 3, rel=1e-5)


def test_lambdas_scale_the_losses_and_zero_switches_them_off() -> None:
    student, teacher = batch()
    one, other = (
        distilled(ERDParams(), student, teacher),
        distilled(ERDParams(lambda_cls=3.0, lambda_box=0.0), student, teacher),
    )
    assert other["loss_dist_cls"].item() == pytest.approx(3 * one["loss_dist_cls"].item(), rel=1e-6)
    assert other["loss_dist_bbox"] == 0


@pytest.mark.parametrize(("preset", "factor"), [("erd_2023", 2.0), ("fixed", 1.0)])
def test_two_equal_images_double_the_released_loss_and_leave_the_fixed_one(preset: str, factor: float) -> None:
    student, teacher = batch(1)
    alone = distilled(PRESETS[preset], student, teacher)
    twice = distilled(PRESETS[preset], pick(student, [0, 0]), pick(teacher, [0, 0]))
    for name in ("loss_dist_cls", "loss_dist_bbox"):
        assert twice[name].item() == pytest.approx(factor * alone[name].item(), rel=1e-6)


def test_the_2022_code_takes_one_mean_over_the_selection_of_the_batch() -> None:
    student, teacher = batch()
    params = PRESETS["erd_2022"]
    mask = masks(teacher, params)[0]
    assert mask[0].sum() != mask[1].sum()
    squares = (student.cls_logits[..., :NUM_OLD] - teacher.cls_logits).square()[mask]
    assert distilled(params, student, teacher)["loss_dist_cls"].item() == pytest.approx(squares.mean().item(), rel=1e-6)


def test_permuting_images_permutes_their_terms() -> None:
    student, teacher = batch(3)
    params, order = ERDParams(), [2, 0, 1]

    def per_image(images: list[int]) -> tuple[Tensor, Tensor]:
        some, known = pick(student, images), pick(teacher, images)
        chosen = taught(known, params)
        return per_image_class(some, chosen, OLD, params)[0], per_image_box(some, chosen, OLD, params)[0]

    for before, after in zip(per_image([0, 1, 2]), per_image(order), strict=True):
        torch.testing.assert_close(after, before[order])
        assert len(set(before.tolist())) == 3


@pytest.mark.parametrize("cls_loss", ["l2_logit", "l2_sigmoid", "bce", "kl"])
def test_what_the_student_says_outside_the_selection_is_nobodys_concern(cls_loss: str) -> None:
    student, teacher = batch()
    params = ERDParams(cls_loss=cls_loss)
    outside = ~masks(teacher, params)[0]
    noise = torch.randn(student.cls_logits.shape, generator=torch.Generator().manual_seed(5))
    noisy = replace(student, cls_logits=student.cls_logits + noise * outside[..., None])
    expected = distilled(params, student, teacher)["loss_dist_cls"]
    assert distilled(params, noisy, teacher)["loss_dist_cls"] == expected > 0


def test_no_gradient_flows_through_the_weight_of_a_box() -> None:
    student, teacher = batch()
    loss = distilled(ERDParams(), student, teacher)["loss_dist_bbox"]
    of_classes, of_boxes = torch.autograd.grad(loss, [student.cls_logits, student.box_logits], allow_unused=True)
    assert of_classes is None
    assert of_boxes.abs().sum() > 0


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


def test_class_losses_are_distances_of_logits_or_of_probabilities() -> None:
    s, t = torch.tensor([[[0.5, -1.0]]]), torch.tensor([[[2.0, -3.0]]])
    p, q = s.sigmoid(), t.sigmoid()
    divergence = q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()
    expected = {"l2_logit": (s - t) ** 2, "l2_sigmoid": (p - q) ** 2, "bce": divergence}
    for cls_loss, terms in expected.items():
        assert class_terms(s, t, ERDParams(cls_loss=cls_loss)).item() == pytest.approx(terms.mean().item(), rel=1e-5)


@pytest.mark.parametrize("box_weight", ["student", "teacher", "none"])
def test_box_terms_are_weighed_and_normalised_as_asked(box_weight: str) -> None:
    student, teacher = batch(1)
    chosen = taught(teacher, ERDParams())
    places = chosen.box_place
    weights = {
        "student": student.cls_logits[0, places, :NUM_OLD].sigmoid().amax(-1),
        "teacher": teacher.cls_logits[0, places].sigmoid().amax(-1),
        "none": torch.ones(len(places)),
    }[box_weight]
    terms = kl_rows(
        student.box_logits[0, places].reshape(-1, 4, 9), teacher.box_logits[0, places].reshape(-1, 4, 9), 10
    )
    weighed = 0.25 * (weights * terms.mean(-1)).sum()
    for box_norm, divisor in (("sum", 1), ("count", len(places)), ("weight_sum", weights.sum())):
        found = distilled(ERDParams(box_weight=box_weight, box_norm=box_norm), student, teacher)["loss_dist_bbox"]
        assert found.item() == pytest.approx((weighed / divisor).item(), rel=1e-5)


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


@pytest.mark.parametrize("temperature", [1, 2, 10])
def test_kl_is_the_closed_form_times_temperature_squared(temperature: int) -> None:
    drawn = torch.Generator().manual_seed(3)
    student, teacher = torch.randn(5, 9, generator=drawn), torch.randn(5, 9, generator=drawn)
    expected = [slow_kl(s.tolist(), t.tolist(), temperature) for s, t in zip(student, teacher, strict=True)]
    assert kl_rows(student, teacher, temperature).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_kl_over_classes_uses_its_temperature() -> None:
    student, teacher = batch(1)
    terms = [
        class_terms(student.cls_logits[..., OLD], teacher.cls_logits, ERDParams(cls_loss="kl", T=T)) for T in (1, 10)
    ]
    assert not torch.allclose(*terms)


def test_counts_are_means_per_image() -> None:
    student, teacher = batch(3)
    found, chosen = distilled(ERDParams(), student, teacher), taught(teacher, ERDParams())
    assert found["n_sel_cls"].item() == pytest.approx(len(chosen.cls_image) / 3)
    assert found["n_sel_box"].item() == pytest.approx(len(chosen.box_image) / 3)


@pytest.mark.gpu
def test_the_same_on_the_gpu() -> None:
    student, teacher = batch(3)
    moved = [
        replace(
            output,
            **{
                name: getattr(output, name).detach().cuda()
                for name in ("cls_logits", "box_logits", "centers", "strides")
            },
        )
        for output in (student, teacher)
    ]
    expected = distilled(ERDParams(), student, teacher)
    found = ERD(ERDParams())(*moved, OLD.cuda(), truth(3))
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {name: value.item() for name, value in expected.items()}, rel=1e-4
    )
