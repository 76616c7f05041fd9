"""Elastic response distillation: its contract, the paper's formulas, its variants; where it listens is apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from search_spaces.distributions import Choice
from search_spaces.erd import PRESETS, ERDParams
from search_spaces.params import params_of
from tests.trainables.batches import forward_pass
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
from tests.trainables.erd_passes import batch, distilled, masks, slow_image, slow_kl
from trainables.detectors.forward import Distiller
from trainables.distillation.divergence import kl_rows
from trainables.distillation.erd import (
    ERD,
    class_terms,
    per_image_box,
    per_image_class,
    taught,
)

CATEGORICAL = [
    (name, value)
    for name, param in params_of(ERDParams).items()
    if isinstance(param.distribution, Choice)
    for value in param.distribution.values
]


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
