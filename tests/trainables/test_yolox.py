"""YOLOX's forward pass, assignment and losses beside mmdet's own head."""

from __future__ import annotations

import pytest
import torch
from mmdet.models import SingleStageDetector
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from tests.trainables.batches import SIDE, images, sample, tiny
from trainables.detectors import yolox_losses
from trainables.detectors.families import YOLOX
from trainables.detectors.forward import CodedForward

NUM_CLASSES = 4
TWO = sample([(3.0, 5.0, 30.0, 33.0), (20.0, 28.0, 61.0, 60.0)], [1, 3])
NONE = sample([], [])
ALL = torch.ones(NUM_CLASSES, dtype=torch.bool)


@pytest.fixture
def detector() -> SingleStageDetector:
    found = tiny(NUM_CLASSES, detector="yoloy_tiny").eval()
    for conv in (*found.bbox_head.multi_level_conv_cls, *found.bbox_head.multi_level_conv_obj):
        torch.nn.init.normal_(conv.weight, std=0.5)
    return found


def passed(detector: SingleStageDetector, count: int) -> CodedForward:
    return YOLOX.forward(detector, images(count))


def test_the_forward_pass_is_mmdets(detector: SingleStageDetector) -> None:
    output = passed(detector, 2)
    with torch.no_grad():
        scores, codes, objectness = detector.bbox_head(detector.extract_feat(images(2)))
    for levels, found in ((scores, output.cls_logits), (codes, output.box_logits)):
        flat = torch.cat([level.flatten(2).mT for level in levels], 1)
        torch.testing.assert_close(found.detach(), flat)
    torch.testing.assert_close(output.obj_logits.detach(), torch.cat([o.flatten(1) for o in objectness], 1))
    priors = torch.cat(
        detector.bbox_head.prior_generator.grid_priors([s.shape[-2:] for s in scores], device="cpu", with_stride=True)
    )
    flat = torch.cat([level.flatten(2).mT for level in codes], 1)
    torch.testing.assert_close(output.boxes.detach(), detector.bbox_head._bbox_decode(priors, flat))
    assert output.level_sizes == tuple((SIDE // stride) ** 2 for stride in (8, 16, 32))


def test_an_image_gets_its_objects_and_an_empty_one_none(detector: SingleStageDetector) -> None:
    targets = yolox_losses.assign(detector.bbox_head, passed(detector, 2), [TWO, NONE])
    assert targets.positive[0].any()
    assert not targets.positive[1].any()
    assert set(targets.labels[0][targets.positive[0]].tolist()) == {1, 3}
    assert (targets.labels[1] == NUM_CLASSES).all()
    assert targets.num_pos == targets.positive.sum()
    place = targets.assigned[0] == 1
    assert (targets.boxes[0][place] == TWO.gt_instances.bboxes[1]).all()


def test_the_classes_cost_is_of_the_square_root(detector: SingleStageDetector) -> None:
    output, seen = passed(detector, 1), []
    original = detector.bbox_head.assigner.assign

    def watched(predictions: InstanceData, *rest: object) -> object:
        seen.append(predictions.scores)
        return original(predictions, *rest)

    detector.bbox_head.assigner.assign = watched
    yolox_losses.assign(detector.bbox_head, output, [TWO])
    torch.testing.assert_close(seen[0].square(), output.scores[0].detach())


def test_losses_of_the_same_assignment_are_mmdets(detector: SingleStageDetector) -> None:
    """mmdet's own loss takes the scores without a root; with it taken back both assign alike."""
    head, original = detector.bbox_head, detector.bbox_head.assigner.assign

    def rooted(pred_instances: InstanceData, **rest: object) -> object:
        pred_instances.scores = pred_instances.scores.sqrt()
        return original(pred_instances, **rest)

    output = passed(detector, 2)
    targets = yolox_losses.assign(head, output, [TWO, NONE])
    found = yolox_losses.losses(output, targets, ALL)
    head.assigner.assign = rooted
    with torch.no_grad():
        outputs = head(detector.extract_feat(images(2)))
        expected = head.loss_by_feat(*outputs, [TWO.gt_instances, NONE.gt_instances], [s.metainfo for s in (TWO, NONE)])
    assert targets.num_pos > 1
    for name in ("loss_cls", "loss_bbox", "loss_obj"):
        assert found[name].item() == pytest.approx(expected[name].item(), rel=1e-4), name


def test_a_slice_of_classes_restricts_the_class_term_alone(detector: SingleStageDetector) -> None:
    output = passed(detector, 1)
    targets = yolox_losses.assign(detector.bbox_head, output, [TWO])
    some = torch.tensor([False, True, False, True])
    found, whole = yolox_losses.losses(output, targets, some), yolox_losses.losses(output, targets, ALL)
    assert found["loss_cls"] < whole["loss_cls"]
    assert (found["loss_obj"], found["loss_bbox"]) == (whole["loss_obj"], whole["loss_bbox"])
    gradient = torch.autograd.grad(found["loss_cls"], detector.bbox_head.multi_level_conv_cls[0].weight)[0]
    assert (gradient[[0, 2]] == 0).all()


@pytest.mark.parametrize("batch", [[NONE], [NONE, NONE]], ids=len)
def test_without_objects_losses_are_finite(detector: SingleStageDetector, batch: list[DetDataSample]) -> None:
    output = passed(detector, len(batch))
    targets = yolox_losses.assign(detector.bbox_head, output, batch)
    found = yolox_losses.losses(output, targets, ALL)
    assert found["loss_cls"] == found["loss_bbox"] == 0
    assert 0 < found["loss_obj"] < 1e5  # the released code divides by float32's epsilon
    sum(value for name, value in found.items() if name.startswith("loss")).backward()
