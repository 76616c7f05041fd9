"""Which boxes of a teacher become labels, and what their locations count."""

from __future__ import annotations

import copy

import pytest
import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor

from search_spaces.ilyolox import ILYOLOXParams
from tests.trainables.batches import coded_pass, sample, tiny
from trainables.detectors.forward import CodedForward, Samples
from trainables.detectors.yolox_losses import AssignedTargets, assign, losses
from trainables.distillation.teacher_boxes import NOBODY, TeacherBoxes, of_teacher, select

NUM_OLD, NUM_CLASSES = 4, 7
OLD = torch.tensor([2, 0, 5, 6])  # label ids of the teacher's channels
HEAD = tiny(NUM_CLASSES, detector="yoloy_tiny").bbox_head
REAL = sample([(8.0, 8.0, 40.0, 40.0)], [1])
RULES = ("all_by_one", "all_mean_std", "cls_mean_std", "re_sampling")


def told(teacher: CodedForward) -> tuple[Tensor, Tensor, Tensor]:
    return teacher.cls_logits[0].sigmoid(), teacher.obj_logits[0].sigmoid(), teacher.boxes[0]


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_keeps_some_in_rising_order_that_do_not_overlap(rule: str) -> None:
    probabilities, objectness, boxes = told(coded_pass(1, NUM_OLD, 1))
    params = ILYOLOXParams(select=rule, nms_iou=0.5)
    kept = select(probabilities, objectness, boxes, params, torch.arange(NUM_OLD))
    assert 0 < len(kept) < len(boxes)
    assert kept.tolist() == sorted(set(kept.tolist()))
    labels = probabilities[kept].argmax(-1)
    same = (labels[:, None] == labels).fill_diagonal_(False)
    assert (bbox_overlaps(boxes[kept], boxes[kept])[same] <= 0.5).all()


def test_center_resampling_keeps_confident_centres_and_what_overlaps_them() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 1.0, 10.0, 11.0], [30.0, 30.0, 40.0, 40.0]])
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.1], [0.2, 0.1]])
    objectness = torch.tensor([0.9, 0.9, 0.9])
    params = ILYOLOXParams(thr_center=0.5, thr_other=0.1, iou_other=0.7, nms_iou=0.95)
    assert select(probabilities, objectness, boxes, params, torch.arange(2)).tolist() == [0, 1]
    of_others = select(probabilities, objectness, boxes, params, torch.tensor([1]))
    assert not len(of_others)
    weak = torch.tensor([0.9, 0.3, 0.9])  # 0.2 * 0.3 is below thr_other
    assert select(probabilities, weak, boxes, params, torch.arange(2)).tolist() == [0]


@pytest.mark.parametrize(("fallback", "kept"), [(False, []), (True, [0])])
def test_a_class_with_one_candidate_has_no_spread(fallback: bool, kept: list[int]) -> None:
    boxes, objectness = torch.tensor([[0.0, 0.0, 9.0, 9.0]]), torch.ones(1)
    params = ILYOLOXParams(select="cls_mean_std", sparse_fallback=fallback, score_thr=0.3)
    found = select(torch.tensor([[0.8, 0.1]]), objectness, boxes, params, torch.arange(2))
    assert found.tolist() == kept


def completed(params: ILYOLOXParams, *samples: object) -> tuple[list, CodedForward]:
    teacher = coded_pass(len(samples), NUM_OLD, 2)
    return TeacherBoxes(params, OLD)(teacher, list(samples)), teacher


def test_the_teachers_boxes_come_first_with_their_labels_and_places() -> None:
    before = copy.deepcopy(REAL)
    (found,), teacher = completed(ILYOLOXParams(), REAL)
    objects = found.gt_instances
    priors = objects.prior[:-1]
    assert objects.prior[-1] == NOBODY
    assert objects.labels[-1] == 1
    torch.testing.assert_close(objects.bboxes[:-1], teacher.boxes[0, priors])
    assert objects.labels[:-1].tolist() == OLD[teacher.cls_logits[0, priors].argmax(-1)].tolist()
    assert torch.equal(REAL.gt_instances.bboxes, before.gt_instances.bboxes)


def test_a_teacher_that_finds_nothing_leaves_the_samples_as_they_are() -> None:
    found, _ = completed(ILYOLOXParams(select="all_by_one", score_thr=0.6, nms_iou=0.5), REAL)
    strict = ILYOLOXParams(thr_center=0.6, thr_other=1.1)
    (none,), _ = completed(strict, REAL)
    assert len(found[0].gt_instances) > 1
    assert none.gt_instances.prior.tolist() == [NOBODY]


def targets_of(params: ILYOLOXParams) -> tuple[AssignedTargets, Samples, CodedForward]:
    samples, _ = completed(params, REAL, sample([], []))
    student = coded_pass(2, NUM_CLASSES, 3)
    return assign(HEAD, student, samples), samples, student


def test_only_the_source_of_a_box_decides_whether_a_location_is_old() -> None:
    targets, samples, _ = targets_of(ILYOLOXParams())
    old, priors = of_teacher(targets, samples)
    assert old.any()
    assert (targets.positive & ~old).any()
    for image, place in old.nonzero().tolist():
        box = samples[image].gt_instances[int(targets.assigned[image, place])]
        assert box.prior.item() == priors[image, place]


TRAINED = torch.ones(NUM_CLASSES, dtype=torch.bool)
LABELLED = torch.ones(2, NUM_CLASSES, dtype=torch.bool)


def test_what_the_locations_of_the_teachers_boxes_count() -> None:
    hard, soft = ILYOLOXParams(which="posandprev"), ILYOLOXParams(which="posnoprev")
    targets, samples, student = targets_of(hard)
    assert TeacherBoxes(hard, OLD).weighed(targets, samples, LABELLED) is targets
    without = TeacherBoxes(soft, OLD).weighed(targets, samples, LABELLED)
    old, _ = of_teacher(targets, samples)
    assert without.num_trained == (targets.positive & ~old).sum()
    assert (without.cls_share[old] == 0).all()
    found, plain = losses(student, without, TRAINED), losses(student, targets, TRAINED)
    assert found["loss_obj"] == plain["loss_obj"]
    assert found["loss_cls"] != plain["loss_cls"]
    half = ILYOLOXParams(which="labelwprev", alpha_cls=0.5, alpha_loc=0.5)
    weighed = TeacherBoxes(half, OLD).weighed(targets, samples, LABELLED)
    assert set(weighed.cls_share.unique().tolist()) == {0.5, 1.0}  # the released code makes integers of them
