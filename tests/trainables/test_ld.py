"""Localization distillation: its losses and its regions."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from search_spaces.ld import PRESETS, LDParams
from tests.trainables.batches import forward_pass
from tests.trainables.distiller_contract import NUM_CLASSES, NUM_OLD, OLD, DistillerContract, labelled, learning, truth
from trainables.detectors.forward import Distiller, Forward
from trainables.distillation import regions
from trainables.distillation.divergence import kl_rows
from trainables.distillation.ld import LD


class TestLD(DistillerContract):
    @pytest.fixture(params=sorted(PRESETS))
    def distiller(self, request: pytest.FixtureRequest) -> Distiller:
        return LD(PRESETS[request.param])


class TestLDImitating(DistillerContract):
    @pytest.fixture(params=["fitnet", "finegrained", "gibox", "decouple"])
    def distiller(self, request: pytest.FixtureRequest) -> Distiller:
        return LD(LDParams(imitation=request.param, vlr_metric="diou", w_kd_vlr=1.0))


def pair() -> tuple[Forward, Forward]:
    return learning(forward_pass(2, NUM_CLASSES, 1)), forward_pass(2, NUM_OLD, 2)


def test_main_ld_is_the_weighted_divergence_at_positive_locations() -> None:
    student, teacher = pair()
    batch = truth(2)
    main = batch.targets.labels < batch.targets.background
    expected = 0.0
    for image, place in main.nonzero().tolist():
        weight = student.cls_logits[image, place].sigmoid().max().item()
        own, taught = (output.box_logits[image, place].reshape(4, -1) for output in (student, teacher))
        expected += 0.25 * weight * kl_rows(own, taught, 10).sum().item() / 4
    found = LD(LDParams(ld_norm="none"))(student, teacher, OLD, batch)
    assert found["loss_ld"].item() == pytest.approx(expected, rel=1e-5)
    by_image = LD(LDParams(ld_norm="per_image"))(student, teacher, OLD, batch)
    assert by_image["loss_ld"].item() == pytest.approx(expected / 2, rel=1e-5)


def test_class_kd_is_a_mean_in_each_level() -> None:
    student, teacher = pair()
    batch = labelled([([(8.0, 8.0, 40.0, 40.0), (2.0, 2.0, 14.0, 14.0)], [5, 6])] * 2)
    main = batch.targets.labels < batch.targets.background
    rows = kl_rows(student.cls_logits[..., :NUM_OLD], teacher.cls_logits, 2)
    levels = zip(rows.split(student.level_sizes, 1), main.split(student.level_sizes, 1), strict=True)
    expected = sum(values[mask].mean().item() for values, mask in levels if mask.any())
    found = LD(LDParams(w_kd=10.0))(student, teacher, OLD, batch)
    assert found["loss_kd"].item() == pytest.approx(10 * expected, rel=1e-5)


def test_a_weight_of_zero_leaves_its_term_out() -> None:
    student, teacher = pair()
    found = LD(LDParams(w_ld=0.0, w_vlr=0.0, w_kd=0.0))(student, teacher, OLD, truth(2))
    assert not [name for name in found if name.startswith("loss")]


ANCHORS = forward_pass(1, NUM_OLD).anchors
SIZES = forward_pass(1, NUM_OLD).level_sizes
BOXES = torch.tensor([[8.0, 8.0, 40.0, 40.0], [30.0, 20.0, 62.0, 60.0]])


def slow_valuable(gamma: float, metric: str) -> list[float]:
    """The region by its definition, one number after another."""
    anchors, boxes = ANCHORS.tolist(), BOXES.tolist()
    found = [0.0] * len(anchors)
    for box in boxes:
        candidates, begin = [], 0
        for size in SIZES:
            own = sorted(range(begin, begin + size), key=lambda place: math.dist(center(anchors[place]), center(box)))
            candidates += [iou(anchors[place], box) for place in own[:9]]
            begin += size
        threshold = float(torch.tensor(candidates).mean() + torch.tensor(candidates).std())
        for place, anchor in enumerate(anchors):
            corners = [min(anchor[k], box[k]) for k in (0, 1)] + [max(anchor[k], box[k]) for k in (2, 3)]
            apart = math.dist(center(anchor), center(box)) ** 2 / math.dist(corners[:2], corners[2:]) ** 2
            overlap = iou(anchor, box) if metric == "diou" else inter(anchor, box) / area(anchor)
            if gamma * threshold <= overlap - apart < threshold:
                found[place] = max(found[place], iou(anchor, box))
    return found


def center(box: list[float]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def area(box: list[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def inter(one: list[float], other: list[float]) -> float:
    width, height = (max(min(one[k + 2], other[k + 2]) - max(one[k], other[k]), 0) for k in (0, 1))
    return width * height


def iou(one: list[float], other: list[float]) -> float:
    return inter(one, other) / (area(one) + area(other) - inter(one, other))


@pytest.mark.parametrize("metric", ["released", "diou"])
@pytest.mark.parametrize("gamma", [0.0, 0.25, 0.5])
def test_the_valuable_region_is_as_defined(gamma: float, metric: str) -> None:
    found = regions.valuable(ANCHORS, SIZES, BOXES, gamma, metric)
    torch.testing.assert_close(found, torch.tensor(slow_valuable(gamma, metric)), rtol=1e-5, atol=1e-6)
    assert (found > 0).any()


def test_without_boxes_every_region_is_empty() -> None:
    none = torch.zeros(0, 4)
    assert not regions.valuable(ANCHORS, SIZES, none, 0.25, "released").any()
    assert not regions.inside_boxes(ANCHORS, none).any()
    assert not regions.finegrained(ANCHORS, none).any()


def test_general_instances_are_the_places_of_the_largest_difference() -> None:
    student, teacher = forward_pass(2, NUM_CLASSES, 1), forward_pass(2, NUM_OLD, 2)
    louder = teacher.cls_logits.clone()
    louder[1, 5, 2] = 30.0
    student = replace(student, cls_logits=student.cls_logits - 5)
    mask = regions.general_instances(student, replace(teacher, cls_logits=louder), OLD, "image")
    assert mask[1, 5]
    levels = [part.sum(1).max().item() for part in mask.split(student.level_sizes, 1)]
    assert all(0 < count <= 10 for count in levels)
    whole: Tensor = regions.general_instances(student, teacher, OLD, "batch")
    assert all(0 < part.sum() <= 10 for part in whole.split(student.level_sizes, 1))
