"""What every distiller keeps to; a method's test inherits `DistillerContract` and says which distiller it means."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.trainables.batches import Boxes, forward_pass, sample, tiny
from trainables.detectors.forward import Batch, Distiller, Forward
from trainables.detectors.gfl_losses import assign

NUM_OLD, NUM_CLASSES = 4, 7
OLD = torch.arange(NUM_OLD)
HEAD = tiny(NUM_CLASSES).bbox_head


def truth(count: int) -> Batch:
    """Images of which every second is without objects."""
    objects = ([(8.0, 8.0, 40.0, 40.0)], [NUM_OLD]), ([], [])
    return labelled([objects[image % 2] for image in range(count)])


def labelled(objects: Sequence[tuple[Boxes, list[int]]]) -> Batch:
    """Images with these boxes and labels, and what each location should say."""
    samples = [sample(boxes, labels) for boxes, labels in objects]
    return Batch(samples, assign(HEAD, samples, torch.device("cpu")))


def reordered(batch: Batch, images: list[int]) -> Batch:
    """The same images in another order."""
    targets = replace(
        batch.targets, **{name: getattr(batch.targets, name)[images] for name in ("labels", "weights", "boxes")}
    )
    return Batch([batch.samples[image] for image in images], targets)


def learning(output: Forward) -> Forward:
    """A forward pass whose logits collect gradients."""
    return replace(
        output,
        cls_logits=output.cls_logits.clone().requires_grad_(),
        box_logits=output.box_logits.clone().requires_grad_(),
        features={
            name: [level.clone().requires_grad_() for level in levels] for name, levels in output.features.items()
        },
    )


def leaves(output: Forward) -> list[Tensor]:
    """All that collects gradients."""
    return [output.cls_logits, output.box_logits, *(level for levels in output.features.values() for level in levels)]


def agreeing(teacher: Forward, seed: int = 9) -> Forward:
    """A student that says what the teacher says, and anything about new classes."""
    new = forward_pass(len(teacher.cls_logits), NUM_CLASSES - NUM_OLD, seed).cls_logits
    return learning(replace(teacher, cls_logits=torch.cat([teacher.cls_logits, new], dim=-1)))


def total(losses: dict[str, Tensor]) -> Tensor:
    """The sum of the losses, without the counts beside them."""
    return torch.stack([value for name, value in losses.items() if name.startswith("loss")]).sum()


def pick(output: Forward, images: list[int]) -> Forward:
    """The forward pass of these images alone."""
    features = {name: [level[images] for level in levels] for name, levels in output.features.items()}
    return replace(
        output, cls_logits=output.cls_logits[images], box_logits=output.box_logits[images], features=features
    )


class DistillerContract:
    """Overrides of `distiller` get every test below."""

    @pytest.fixture
    def distiller(self) -> Distiller:
        raise NotImplementedError

    @pytest.mark.parametrize("count", [1, 2, 3, 5])
    def test_losses_are_named_finite_and_not_negative(self, distiller: Distiller, count: int) -> None:
        student, teacher = forward_pass(count, NUM_CLASSES, 1), forward_pass(count, NUM_OLD, 2)
        found = distiller(student, teacher, OLD, truth(count))
        assert any(name.startswith("loss_") for name in found)
        assert all(value.shape == () and torch.isfinite(value) and value >= 0 for value in found.values())
        assert total(found) > 0

    def test_the_gradient_reaches_the_student_and_never_the_teacher(self, distiller: Distiller) -> None:
        student, teacher = learning(forward_pass(2, NUM_CLASSES, 1)), learning(forward_pass(2, NUM_OLD, 2))
        total(distiller(student, teacher, OLD, truth(2))).backward()
        assert any(leaf.grad is not None and leaf.grad.abs().sum() > 0 for leaf in leaves(student))
        assert all(leaf.grad is None for leaf in leaves(teacher))

    def test_inputs_stay_as_they_were(self, distiller: Distiller) -> None:
        student, teacher, batch = forward_pass(2, NUM_CLASSES, 1), forward_pass(2, NUM_OLD, 2), truth(2)
        before = copy.deepcopy((leaves(student), leaves(teacher), batch.targets))
        distiller(student, teacher, OLD, batch)
        after = (leaves(student), leaves(teacher), batch.targets)
        for old, new in zip(
            (*before[:2], list(vars(before[2]).values())), (*after[:2], list(vars(after[2]).values())), strict=True
        ):
            assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(old, new, strict=True))

    @pytest.mark.parametrize("count", [1, 2])
    def test_without_ground_truth_all_is_finite(self, distiller: Distiller, count: int) -> None:
        student, teacher = learning(forward_pass(count, NUM_CLASSES, 1)), forward_pass(count, NUM_OLD, 2)
        found = distiller(student, teacher, OLD, labelled([([], [])] * count))
        assert all(torch.isfinite(value) for value in found.values())
        total(found).backward()

    def test_a_student_like_its_teacher_loses_nothing_and_stays(self, distiller: Distiller) -> None:
        teacher = forward_pass(2, NUM_OLD, 2)
        student = agreeing(teacher)
        found = distiller(student, teacher, OLD, truth(2))
        assert {name: abs(value.item()) < 1e-6 for name, value in found.items() if name.startswith("loss")} == {
            name: True for name in found if name.startswith("loss")
        }
        gradients = torch.autograd.grad(total(found), leaves(student), allow_unused=True)
        assert all(gradient.abs().max() < 1e-6 for gradient in gradients if gradient is not None)

    def test_the_order_of_images_does_not_matter(self, distiller: Distiller) -> None:
        student, teacher = forward_pass(3, NUM_CLASSES, 1), forward_pass(3, NUM_OLD, 2)
        found = distiller(student, teacher, OLD, truth(3))
        moved = [2, 0, 1]
        of_moved = distiller(pick(student, moved), pick(teacher, moved), OLD, reordered(truth(3), moved))
        assert {name: value.item() for name, value in of_moved.items()} == pytest.approx(
            {name: value.item() for name, value in found.items()}, rel=1e-5
        )

    def test_old_classes_may_lie_anywhere_among_the_students_channels(self, distiller: Distiller) -> None:
        student, teacher = forward_pass(2, NUM_CLASSES, 1), forward_pass(2, NUM_OLD, 2)
        expected = total(distiller(student, teacher, OLD, truth(2)))
        order = torch.tensor([5, 2, 6, 0, 4, 1, 3])  # channel k of the shuffled student is channel order[k]
        shuffled = replace(student, cls_logits=student.cls_logits[..., order])
        found = total(distiller(shuffled, teacher, order.argsort()[:NUM_OLD], truth(2)))
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)

    def test_new_classes_are_left_alone(self, distiller: Distiller) -> None:
        student, teacher = learning(forward_pass(2, NUM_CLASSES, 1)), forward_pass(2, NUM_OLD, 2)
        total(distiller(student, teacher, OLD, truth(2))).backward()
        assert student.cls_logits.grad is None or student.cls_logits.grad[..., NUM_OLD:].abs().max() == 0

    def test_the_same_batch_gives_the_same_losses(self, distiller: Distiller) -> None:
        student, teacher = forward_pass(2, NUM_CLASSES, 1), forward_pass(2, NUM_OLD, 2)
        first, second = (distiller(student, teacher, OLD, truth(2)) for _ in range(2))
        assert first == second
