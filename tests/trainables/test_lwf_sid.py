"""LwF and SID."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from search_spaces.lwf import LwFParams
from search_spaces.sid import SIDParams
from tests.trainables.batches import forward_pass
from tests.trainables.distiller_contract import NUM_CLASSES, NUM_OLD, OLD, DistillerContract, truth
from trainables.detectors.forward import Distiller, Forward
from trainables.distillation.lwf import LwF
from trainables.distillation.sid import SID


class TestLwF(DistillerContract):
    @pytest.fixture(params=[LwFParams(), LwFParams(reg_term=False)])
    def distiller(self, request: pytest.FixtureRequest) -> Distiller:
        return LwF(request.param)


class TestSID(DistillerContract):
    @pytest.fixture(params=[SIDParams(), SIDParams(feat="both", feat_reduce="mean")])
    def distiller(self, request: pytest.FixtureRequest) -> Distiller:
        return SID(request.param)


def pair() -> tuple[Forward, Forward]:
    return forward_pass(2, NUM_CLASSES, 1), forward_pass(2, NUM_OLD, 2)


@pytest.mark.parametrize("reg_term", [True, False])
def test_lwf_is_the_mean_square_over_old_channels_and_box_channels(reg_term: bool) -> None:
    student, teacher = pair()
    squares = (student.cls_logits[..., :NUM_OLD] - teacher.cls_logits).square()
    if reg_term:
        squares = torch.cat([squares, (student.box_logits - teacher.box_logits).square()], -1)
    found = LwF(LwFParams(w_out=3.0, reg_term=reg_term))(student, teacher, OLD, truth(2))
    assert found["loss_lwf"].item() == pytest.approx(3 * squares.mean().item(), rel=1e-5)


def test_sid_weighs_classes_and_features_apart() -> None:
    student, teacher = pair()
    one = SID(SIDParams(w_cls=2.0, w_feat=3.0))(student, teacher, OLD, truth(2))
    unit = SID(SIDParams())(student, teacher, OLD, truth(2))
    assert one["loss_sid_cls"].item() == pytest.approx(2 * unit["loss_sid_cls"].item(), rel=1e-6)
    assert one["loss_sid_feat"].item() == pytest.approx(3 * unit["loss_sid_feat"].item(), rel=1e-6)
    means = [
        (own - taught).square().mean().item()
        for name in ("cls_tower", "reg_tower")
        for own, taught in zip(student.features[name], teacher.features[name], strict=True)
    ]
    assert unit["loss_sid_feat"].item() == pytest.approx(sum(means), rel=1e-5)
    by_level = SID(SIDParams(feat_reduce="mean"))(student, teacher, OLD, truth(2))
    assert by_level["loss_sid_feat"].item() == pytest.approx(sum(means) / 3, rel=1e-5)


def test_sid_listens_to_the_features_it_is_told_to() -> None:
    student, teacher = pair()
    louder = replace(teacher, features={**teacher.features, "fpn": [2 * level for level in teacher.features["fpn"]]})
    for feat, same in (("towers", True), ("fpn", False), ("both", False)):
        one, other = (SID(SIDParams(feat=feat))(student, heard, OLD, truth(2)) for heard in (teacher, louder))
        assert (one["loss_sid_feat"] == other["loss_sid_feat"]).item() is same
