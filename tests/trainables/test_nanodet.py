"""NanoDet-Plus: its forward pass beside its own head, its assigner, and growing a shared class and box convolution."""

from __future__ import annotations

import pytest
import torch
from mmdet.models import SingleStageDetector

from tests.trainables.batches import SIDE, images, sample, tiny
from trainables.detectors.families import family_of
from trainables.detectors.forward import Forward
from trainables.detectors.gfl_losses import quality_focal
from trainables.detectors.growth import grown, load_weights
from trainables.detectors.nanodet import REG_MAX

NUM_CLASSES = 4
TWO = sample([(3.0, 5.0, 30.0, 33.0), (20.0, 28.0, 61.0, 60.0)], [1, 3])
NONE = sample([], [])


@pytest.fixture
def detector() -> SingleStageDetector:
    return tiny(NUM_CLASSES, detector="nanodet_tiny").eval()


def passed(detector: SingleStageDetector, count: int) -> Forward:
    return family_of(detector).forward(detector, images(count))


def test_the_forward_pass_is_the_heads(detector: SingleStageDetector) -> None:
    output = passed(detector, 2)
    with torch.no_grad():
        classes, boxes = detector.bbox_head(detector.extract_feat(images(2)))
    torch.testing.assert_close(output.cls_logits.detach(), torch.cat([one.flatten(2).mT for one in classes], 1))
    torch.testing.assert_close(output.box_logits.detach(), torch.cat([one.flatten(2).mT for one in boxes], 1))
    assert output.level_sizes == tuple((SIDE // stride) ** 2 for stride in (8, 16, 32, 64))
    assert output.centers[:2].tolist() == [[0, 0], [8, 0]]
    assert len(output.features["cls_tower"]) == 4


def test_an_image_gets_its_objects_and_an_empty_one_none(detector: SingleStageDetector) -> None:
    family = family_of(detector)
    targets = family.assign(detector.bbox_head, passed(detector, 2), [TWO, NONE])
    assert set(targets.labels[0].tolist()) == {1, 3, NUM_CLASSES}
    assert (targets.labels[1] == NUM_CLASSES).all()
    assert targets.num_pos == (targets.labels < NUM_CLASSES).sum()
    inside = targets.labels[0] == 1
    assert (targets.boxes[0][inside] == TWO.gt_instances.bboxes[0]).all()


def test_without_objects_losses_are_finite_and_reach_every_parameter(detector: SingleStageDetector) -> None:
    detector.train()
    output, family = passed(detector, 2), family_of(detector)
    targets = family.assign(detector.bbox_head, output, [NONE, NONE])
    found = family.losses(output, targets, torch.ones(NUM_CLASSES, dtype=torch.bool))
    total = torch.stack([value for name, value in found.items() if name.startswith("loss")]).sum()
    assert torch.isfinite(total)
    total.backward()
    assert all(parameter.grad is not None for parameter in detector.parameters())


def test_class_rows_grow_and_box_rows_stay_behind_them(detector: SingleStageDetector) -> None:
    before = detector.state_dict()
    after = grown("nanodet_tiny", before, NUM_CLASSES + 3, "focal_prior")
    larger = tiny(NUM_CLASSES + 3, seed=1, detector="nanodet_tiny").eval()
    load_weights(larger, after, "grown")
    old, new = passed(detector, 1), passed(larger, 1)
    torch.testing.assert_close(new.cls_logits[..., :NUM_CLASSES], old.cls_logits)
    torch.testing.assert_close(new.box_logits, old.box_logits)
    rows = after["bbox_head.gfl_cls.0.bias"]
    assert len(rows) == NUM_CLASSES + 3 + 4 * (REG_MAX + 1)
    assert rows[NUM_CLASSES : NUM_CLASSES + 3].sigmoid().tolist() == pytest.approx([0.01] * 3)


def test_the_background_may_count_less() -> None:
    logits, labels, quality = torch.randn(5, 3), torch.tensor([0, 1, 2, 3, 3]), torch.rand(5)
    whole = quality_focal(logits, labels, quality, 2.0)
    half = quality_focal(logits, labels, quality, 2.0, 0.5)
    own = torch.arange(3) == labels[:, None]
    assert torch.equal(half[own], whole[own])
    assert torch.equal(half[~own], 0.5 * whole[~own])
