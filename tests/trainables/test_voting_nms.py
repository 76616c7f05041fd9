"""Voting NMS: alone, and as the post-processing of a detector."""

from __future__ import annotations

import pytest
import torch
from mmdet.models import SingleStageDetector
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from tests.trainables.batches import SIDE, images, tiny
from trainables.detectors.voting_nms import TYPE, voting_nms

NEAR = torch.tensor(
    [[10.0, 10.0, 50.0, 50.0], [11.0, 10.0, 51.0, 50.0], [10.0, 12.0, 50.0, 52.0], [70.0, 70.0, 90.0, 90.0]]
)
SCORES = torch.tensor([0.9, 0.8, 0.7, 0.6])
ONE_CLASS = torch.zeros(4, dtype=torch.long)


def test_a_cluster_keeps_its_best_box_where_its_votes_put_it() -> None:
    boxes, kept = voting_nms(NEAR, SCORES, ONE_CLASS)
    assert kept.tolist() == [0, 3]
    assert boxes[1].tolist() == NEAR[3].tolist()
    assert 10 < boxes[0, 0] < 11
    assert 10 < boxes[0, 1] < 12


def test_other_classes_and_far_boxes_have_no_vote() -> None:
    boxes, kept = voting_nms(NEAR, SCORES, torch.arange(4))
    assert kept.tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(boxes, NEAR, rtol=1e-6, atol=1e-4)


def test_under_a_gate_of_one_the_boxes_stay_where_they_are() -> None:
    boxes, _ = voting_nms(NEAR, SCORES, ONE_CLASS, gate=1 - 1e-6)
    torch.testing.assert_close(boxes, NEAR[[0, 3]], rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("count", [0, 1])
def test_one_box_or_none_stays_as_it_is(count: int) -> None:
    boxes, kept = voting_nms(NEAR[:count], SCORES[:count], ONE_CLASS[:count])
    assert boxes.shape == (count, 4)
    assert kept.tolist() == list(range(count))


def test_the_order_of_boxes_does_not_matter() -> None:
    order = torch.tensor([2, 0, 3, 1])
    boxes, kept = voting_nms(NEAR[order], SCORES[order], ONE_CLASS)
    expected, _ = voting_nms(NEAR, SCORES, ONE_CLASS)
    torch.testing.assert_close(boxes, expected)
    assert order[kept].tolist() == [0, 3]


@pytest.fixture
def detector() -> SingleStageDetector:
    found = tiny(4).eval()
    torch.nn.init.normal_(found.bbox_head.gfl_cls.weight, std=0.3)
    return found


def detected(detector: SingleStageDetector) -> InstanceData:
    shape = (SIDE, SIDE)
    sample = DetDataSample(metainfo={"img_shape": shape, "batch_input_shape": shape, "scale_factor": (1.0, 1.0)})
    with torch.no_grad():
        found: InstanceData = detector.predict(images(1), [sample], rescale=False)[0].pred_instances
    return found


def places(found: InstanceData) -> set[tuple[int, float]]:
    labels: Tensor = found.labels
    return {(label, round(score, 5)) for label, score in zip(labels.tolist(), found.scores.tolist(), strict=True)}


def test_a_detector_votes_where_its_test_says_so(detector: SingleStageDetector) -> None:
    plain = detected(detector)
    detector.bbox_head.test_cfg.nms = {"type": TYPE, "iou_threshold": 0.6}
    voted = detected(detector)
    assert len(plain) > 10
    assert len(places(plain) & places(voted)) > len(plain) / 2
    assert not torch.equal(plain.bboxes[:5], voted.bboxes[:5])
    assert (voted.scores.diff() <= 0).all()
    detector.bbox_head.test_cfg.max_per_img = 3
    assert len(detected(detector)) == 3
