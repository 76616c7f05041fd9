"""The method of the page: what every distiller keeps to, its loss derived by hand, and a chain of steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from tests.extending.method import PRESETS, SoftTargets, SoftTargetsParams
from tests.trainables.batches import forward_pass
from tests.trainables.distiller_contract import NUM_CLASSES, NUM_OLD, OLD, DistillerContract, truth
from trainables.catalog import METHODS, Method
from trainables.detectors.forward import Distiller


class TestSoftTargets(DistillerContract):
    @pytest.fixture(params=[SoftTargetsParams(), SoftTargetsParams(T=8.0)])
    def distiller(self, request: pytest.FixtureRequest) -> Distiller:
        return SoftTargets(request.param)


@pytest.mark.parametrize("T", [1.0, 3.0])
def test_it_is_the_divergence_of_softened_probabilities(T: float) -> None:
    student, teacher = forward_pass(1, NUM_CLASSES, 1), forward_pass(1, NUM_OLD, 2)
    total = 0.0
    for own_row, taught_row in zip(student.cls_logits[0].tolist(), teacher.cls_logits[0].tolist(), strict=True):
        for own, taught in zip(own_row[:NUM_OLD], taught_row, strict=True):
            p, q = (1 / (1 + math.exp(-logit / T)) for logit in (taught, own))
            total += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    found = SoftTargets(SoftTargetsParams(w_soft=5.0, T=T))(student, teacher, OLD, truth(1))
    assert found["loss_soft"].item() == pytest.approx(5 * T**2 * total / teacher.cls_logits.numel(), rel=1e-4)


def test_a_chain_trains_with_a_table_and_with_a_live_teacher_alike(
    chain: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Method(PRESETS, "tests.extending.method:SoftTargets", METHODS["sid"].heads)
    monkeypatch.setitem(METHODS, "soft_targets", entry)
    last, live = (chain("soft_targets", table_budget_gb=budget)[-1] for budget in (8.0, 0.0))
    assert last["facts"]["loss_soft"] > 0
    assert "time_saved_responses_s" in last["facts"]
    assert "time_saved_responses_s" not in live["facts"]
    for name in ("loss_soft", "loss_cls", "loss_bbox"):
        assert last["facts"][name] == live["facts"][name]
