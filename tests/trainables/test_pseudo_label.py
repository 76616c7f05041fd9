"""Pseudo-labels: which detections join the ground truth, where, and with what weight."""

from __future__ import annotations

from dataclasses import replace

import torch
from mmdet.structures import DetDataSample
from torch import Tensor

from search_spaces.pseudo_label import PseudoLabelParams
from tests.trainables.batches import SIDE, STRIDES, Boxes, images, sample, tiny
from trainables.detectors.families import GFL
from trainables.detectors.forward import Forward
from trainables.detectors.gfl_losses import assign
from trainables.distillation.pseudo_label import PseudoLabels
from trainables.recipes import TINY

NUM_OLD = 4
OLD = torch.tensor([6, 0, 2, 5])  # label ids, in the teacher's order


def answer(found: list[tuple[tuple[float, float, float, float], int, float]]) -> Forward:
    """A teacher that sees these boxes, of these classes with these scores, in one image, and nothing else."""
    detector = tiny(NUM_OLD).eval()
    with torch.no_grad():
        output = GFL.forward(detector, images(1))
    cls_logits = torch.full_like(output.cls_logits, -20.0)
    box_logits = torch.zeros_like(output.box_logits).unflatten(-1, (4, -1))
    for number, (box, label, score) in enumerate(found):
        column, row = (round((box[k] + box[k + 2]) / 2 / STRIDES[0]) for k in (0, 1))
        place = row * SIDE // STRIDES[0] + column + number  # near the middle, and each in a place of its own
        (x, y), stride = output.centers[place].tolist(), output.strides[place].item()
        for edge, distance in enumerate((x - box[0], y - box[1], box[2] - x, box[3] - y)):
            low, share = divmod(distance / stride, 1)
            box_logits[0, place, edge] = -50.0
            box_logits[0, place, edge, int(low)] = torch.tensor(1 - share).clamp(min=1e-20).log()
            box_logits[0, place, edge, int(low) + 1] = torch.tensor(share).clamp(min=1e-20).log()
        cls_logits[0, place, label] = torch.tensor(score).logit()
    return replace(output, cls_logits=cls_logits, box_logits=box_logits.flatten(-2))


def completed(
    teacher: Forward, real: Boxes, labels: list[int], params: PseudoLabelParams | None = None
) -> DetDataSample:
    pseudo_labels = PseudoLabels(params or PseudoLabelParams(), OLD, TINY.nms_iou)
    (found,) = pseudo_labels(teacher, [sample(real, labels)])
    return found


ONE = (2.0, 10.0, 30.0, 34.0)


def test_a_detection_joins_the_real_boxes_with_its_label_id() -> None:
    found = completed(answer([(ONE, 2, 0.9)]), [(40.0, 40.0, 60.0, 60.0)], [7])
    torch.testing.assert_close(
        found.gt_instances.bboxes, torch.tensor([(40.0, 40.0, 60.0, 60.0), ONE]), atol=0.01, rtol=0
    )
    assert found.gt_instances.labels.tolist() == [7, 2]


def test_the_sample_itself_stays() -> None:
    given = sample([(40.0, 40.0, 60.0, 60.0)], [7])
    PseudoLabels(PseudoLabelParams(), OLD, TINY.nms_iou)(answer([(ONE, 2, 0.9)]), [given])
    assert given.gt_instances.labels.tolist() == [7]


def test_what_scores_too_little_is_left_out() -> None:
    assert not len(completed(answer([(ONE, 2, 0.25)]), [], []).gt_instances)
    assert len(completed(answer([(ONE, 2, 0.25)]), [], [], PseudoLabelParams(score_thr=0.2)).gt_instances) == 1


def test_the_best_of_overlapping_detections_stays_and_no_more_than_asked() -> None:
    teacher = answer([(ONE, 2, 0.6), ((2.0, 10.0, 30.0, 35.0), 2, 0.8), ((20.0, 30.0, 60.0, 50.0), 1, 0.5)])
    assert completed(teacher, [], []).gt_instances.labels.tolist() == [2, 0]
    assert completed(teacher, [], [], PseudoLabelParams(max_pseudo=1)).gt_instances.labels.tolist() == [2]


def test_a_detection_of_what_is_labelled_goes() -> None:
    teacher = answer([(ONE, 2, 0.9)])
    assert completed(teacher, [ONE], [2]).gt_instances.labels.tolist() == [2]
    assert completed(teacher, [ONE], [7]).gt_instances.labels.tolist() == [7, 2]  # another class
    assert completed(teacher, [ONE], [2], PseudoLabelParams(dedup_iou=1.0)).gt_instances.labels.tolist() == [2, 2]


def test_boxes_end_at_the_image_and_slivers_go() -> None:
    boxes = completed(answer([((-6.0, 10.0, 30.0, 80.0), 2, 0.9)]), [], []).gt_instances.bboxes
    torch.testing.assert_close(boxes, torch.tensor([[0.0, 10.0, 30.0, float(SIDE)]]), atol=0.01, rtol=0)
    assert not len(completed(answer([((8.0, 10.0, 8.5, 30.0), 2, 0.9)]), [], []).gt_instances)


def test_pseudo_labels_are_what_the_teacher_itself_detects_in_the_image_that_it_is_given() -> None:
    torch.manual_seed(3)
    detector = tiny(NUM_OLD).eval()
    torch.nn.init.normal_(detector.bbox_head.gfl_cls.weight, std=0.3)
    shape = (SIDE, SIDE)
    with torch.no_grad():
        output = GFL.forward(detector, images(1).flip(-1))
        given = DetDataSample(metainfo={"img_shape": shape, "batch_input_shape": shape, "scale_factor": (1.0, 1.0)})
        (expected,) = detector.predict(images(1).flip(-1), [given], rescale=False)
    kept = expected.pred_instances[expected.pred_instances.scores > 0.3]
    found = completed(output, [], []).gt_instances
    assert len(kept) > 3
    torch.testing.assert_close(found.bboxes, kept.bboxes)
    assert found.labels.tolist() == OLD[kept.labels].tolist()


def test_pseudo_positives_weigh_less_if_asked() -> None:
    teacher = answer([(ONE, 2, 0.9)])
    head = tiny(8).bbox_head
    pseudo_labels = PseudoLabels(PseudoLabelParams(pseudo_weight=0.25), OLD, TINY.nms_iou)
    samples = pseudo_labels(teacher, [sample([(40.0, 40.0, 60.0, 60.0)], [7])])
    targets = assign(head, samples, torch.device("cpu"))
    weighed = pseudo_labels.weighed(targets, samples, torch.arange(8)[None] == 7)
    of: dict[int, Tensor] = {label: weighed.weights[targets.labels == label] for label in (2, 7, 8)}
    assert (of[2] == 0.25).all()
    assert len(of[2])
    assert (of[7] == 1).all()
    assert (of[8] == 1).all()
