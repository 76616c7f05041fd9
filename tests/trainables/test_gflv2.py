"""GFLv2: the quality branch, in training, in the test and beside a teacher."""

from __future__ import annotations

import pytest
import torch
from mmdet.models import BaseDetector
from mmdet.structures import DetDataSample

from search_spaces.ld import LDParams
from tests.trainables.batches import SIDE, images, sample
from trainables.detectors.families import GFL
from trainables.detectors.growth import build_detector, frozen, grown, load_weights
from trainables.distillation.ld import LD
from trainables.incremental import IncrementalDetector
from trainables.recipes import TINY

TWO = sample([(3.0, 5.0, 30.0, 33.0), (20.0, 28.0, 61.0, 60.0)], [2, 3])
LABELLED = torch.tensor([[True, True, False, False], [False, False, True, True]])
OLD = torch.arange(2)


def detector(num_classes: int) -> BaseDetector:
    torch.manual_seed(0)
    found = build_detector("gflv2_r18_tiny", num_classes, TINY)
    torch.nn.init.normal_(found.bbox_head.gfl_cls.weight, std=0.3)
    return found


def test_a_score_is_class_probability_times_quality() -> None:
    found = detector(4).eval()
    with torch.no_grad():
        output = GFL.forward(found, images(2))
    probabilities = output.box_logits.unflatten(-1, (4, -1)).softmax(-1)
    top = probabilities.topk(4, dim=-1).values
    statistics = torch.cat([top, top.mean(-1, keepdim=True)], -1).flatten(-2)
    with torch.no_grad():
        quality = found.bbox_head.reg_conf(statistics.transpose(1, 2)[..., None])[:, 0, :, 0].sigmoid()
    expected = output.cls_logits.sigmoid() * quality[..., None]
    torch.testing.assert_close(output.score_logits.sigmoid(), expected, rtol=1e-5, atol=1e-7)
    assert not torch.equal(output.score_logits, output.cls_logits)


@pytest.mark.parametrize("logit", [-80.0, 0.0, 80.0])
def test_the_most_certain_scores_have_finite_logits_and_gradients(logit: float) -> None:
    head = detector(4).bbox_head
    cls_logits = torch.full((1, 4, 2, 2), logit, requires_grad=True)
    joint = head.joint_logits(cls_logits, torch.randn(1, 36, 2, 2))
    (gradient,) = torch.autograd.grad(joint.sum(), cls_logits)
    assert torch.isfinite(joint).all()
    assert torch.isfinite(gradient).all()


def test_a_box_is_scored_by_class_probability_times_quality() -> None:
    found = detector(4).eval()
    shape = (SIDE, SIDE)
    given = DetDataSample(metainfo={"img_shape": shape, "batch_input_shape": shape, "scale_factor": (1.0, 1.0)})
    with torch.no_grad():
        (answer,) = found.predict(images(1), [given], rescale=False)
        output = GFL.forward(found, images(1))
    best = output.score_logits.sigmoid().max().item()
    assert answer.pred_instances.scores[0].item() == pytest.approx(best, rel=1e-5)


def test_a_student_learns_with_quality_and_is_distilled_without() -> None:
    base = detector(2)
    student = build_detector("gflv2_r18_tiny", 4, TINY)
    load_weights(student, grown("gflv2_r18_tiny", base.state_dict(), 4, "focal_prior"), "base")
    model = IncrementalDetector(student, LABELLED, OLD, "labelled", frozen(base), LD(LDParams()))
    losses = model.train()(images(1), [TWO], mode="loss")
    branch = list(student.bbox_head.reg_conf.parameters())
    of_truth = torch.autograd.grad(losses["loss_cls"], branch, retain_graph=True)
    assert all((gradient != 0).any() for gradient in of_truth)
    of_teacher = torch.autograd.grad(losses["loss_kd"] + losses["loss_ld"], branch, allow_unused=True)
    assert all(gradient is None or not gradient.any() for gradient in of_teacher)
