"""Collaborative distillation."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from mmdet.structures import DetDataSample
from torch import Tensor

from search_spaces.ilyolox import PRESETS, ILYOLOXParams
from tests.trainables.batches import coded_pass, sample, tiny
from trainables.detectors.forward import Batch, CodedForward
from trainables.detectors.yolox_losses import assign
from trainables.distillation.ckd import CKD, balance, class_target
from trainables.distillation.teacher_boxes import TeacherBoxes

NUM_OLD, NUM_CLASSES = 4, 7
OLD = torch.arange(NUM_OLD)
HEAD = tiny(NUM_CLASSES, detector="yoloy_tiny").bbox_head
REAL, NONE = sample([(8.0, 8.0, 40.0, 40.0)], [5]), sample([], [])
EVERY: list[dict[str, Any]] = [
    {}, {"ckd": False}, {"ckd_detach": False}, {"ckd_exponent": 2.0}, {"hybrid": "hy1"}, {"hybrid": "hy2"},
    {"hybrid": "hy3"}, {"hybrid": "onehot"}, {"cd_loss": "kl", "T": 3}, {"cd_loss": "focal"}, {"w_box": 2.0},
    {"new_classes": "ignored"},
]  # fmt: skip


def learning(output: CodedForward) -> CodedForward:
    leaves: dict[str, Any] = {name: value.clone().requires_grad_() for name, value in output.logits.items()}
    return replace(output, **leaves)


def batch_of(params: ILYOLOXParams, student: CodedForward, teacher: CodedForward, samples: Any) -> Batch:
    completed: list[DetDataSample] = TeacherBoxes(params, OLD)(teacher, samples)
    return Batch(completed, assign(HEAD, student, completed))


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack([value for name, value in losses.items() if name.startswith("loss")]).sum()


@pytest.mark.parametrize("changes", EVERY, ids=str)
@pytest.mark.parametrize("samples", [[REAL], [NONE], [REAL, NONE, REAL]], ids=len)
def test_losses_are_finite_and_their_gradient_reaches_the_student_alone(
    changes: dict[str, Any], samples: list[DetDataSample]
) -> None:
    params = ILYOLOXParams(**changes)
    student = learning(coded_pass(len(samples), NUM_CLASSES, 1))
    teacher = learning(coded_pass(len(samples), NUM_OLD, 2))
    batch = batch_of(params, student, teacher, samples)
    before = copy.deepcopy([*(value.detach() for value in teacher.logits.values())])
    found = CKD(params)(student, teacher, OLD, batch)
    assert {"loss_cd_soft", "loss_ld_iou"} <= found.keys()
    assert all(value.shape == () and torch.isfinite(value) for value in found.values())
    assert found["n_distilled"] > 0
    total(found).backward()
    assert student.cls_logits.grad is not None
    assert student.cls_logits.grad[..., :NUM_OLD].abs().sum() > 0
    assert (student.cls_logits.grad[..., NUM_OLD:].abs().sum() > 0) == (params.new_classes == "negative")
    assert all(value.grad is None for value in teacher.logits.values())
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.logits.values(), strict=True))


def test_without_boxes_of_the_teacher_there_is_nothing_to_distil() -> None:
    params = ILYOLOXParams(thr_other=1.1)
    student, teacher = learning(coded_pass(2, NUM_CLASSES, 1)), coded_pass(2, NUM_OLD, 2)
    found = CKD(params)(student, teacher, OLD, batch_of(params, student, teacher, [REAL, NONE]))
    assert total(found) == 0
    total(found).backward()


def test_a_student_like_its_teacher_loses_no_box_and_stays() -> None:
    params = ILYOLOXParams(nms_iou=0.5)
    teacher = coded_pass(1, NUM_OLD, 2)
    grown = torch.cat([teacher.cls_logits, torch.full((*teacher.cls_logits.shape[:2], 3), -20.0)], -1)
    student = learning(replace(teacher, cls_logits=grown))
    batch = batch_of(params, student, teacher, [NONE])
    targets = batch.targets
    # Of the locations of the teacher's boxes only those that found one say what the teacher says there.
    prior = batch.samples[0].gt_instances.prior
    own = torch.zeros_like(targets.positive)
    own[0, prior] = True
    place = torch.full_like(targets.assigned, -1)
    place[0, prior] = torch.arange(len(prior))
    found = CKD(params)(student, teacher, OLD, Batch(batch.samples, replace(targets, assigned=place)))
    assert found["loss_ld_iou"].item() == pytest.approx(0, abs=1e-5)
    total(found).backward()
    assert student.cls_logits.grad is not None
    assert student.cls_logits.grad.abs().max() < 1e-5


def test_the_weights_of_class_and_box_sum_to_two() -> None:
    student, teacher = coded_pass(1, NUM_OLD, 1), coded_pass(1, NUM_OLD, 2)
    of_class, of_box = balance(student.cls_logits[0], teacher.cls_logits[0], student.boxes[0], teacher.boxes[0])
    torch.testing.assert_close(of_class + of_box, torch.full_like(of_class, 2.0))
    sharper, _ = balance(student.cls_logits[0], teacher.cls_logits[0], student.boxes[0], teacher.boxes[0], 2.0)
    assert ((sharper - 1).abs() >= (of_class - 1).abs() - 1e-6).all()


def test_targets_are_sharpened_as_asked() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5]])
    soft = logits.sigmoid()
    assert class_target(logits, "none").tolist() == soft.tolist()
    assert class_target(logits, "hy1")[0].tolist() == [1.0, *soft[0, 1:].tolist()]
    torch.testing.assert_close(class_target(logits, "hy2"), soft + (1 - soft[0, 0]))
    assert class_target(logits, "onehot").tolist() == [[1.0, 0.0, 0.0]]


@pytest.mark.parametrize("which", ["posandprev", "labelwprev"])
def test_hard_labels_are_not_distilled(which: str) -> None:
    params = ILYOLOXParams(which=which)
    student, teacher = coded_pass(1, NUM_CLASSES, 1), coded_pass(1, NUM_OLD, 2)
    assert CKD(params)(student, teacher, OLD, batch_of(params, student, teacher, [REAL])) == {}


def test_presets_are_what_they_are_called() -> None:
    assert set(PRESETS) == {"paper", "released", "cls_only", "crs_only", "ckd_only"}
    assert (PRESETS["released"].select, PRESETS["released"].which) == ("all_by_one", "posandprev")
    assert PRESETS["cls_only"].w_iou == 0
