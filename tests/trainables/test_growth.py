"""Detectors as large as published, and grown by classes without a change for the old ones."""

from __future__ import annotations

import math

import pytest
import torch
from mmdet.models import BaseDetector
from mmdet.registry import MODELS
from mmengine.config import ConfigDict

from tests.trainables.batches import images, tiny
from trainables.catalog import DETECTORS, load
from trainables.detectors.families import GFL
from trainables.detectors.growth import StateDict, frozen, grown, load_weights
from trainables.errors import CheckpointError

WEIGHT, BIAS = "bbox_head.gfl_cls.weight", "bbox_head.gfl_cls.bias"
NUM_PARAMETERS = {
    ("gfl_r18_tiny", 10): 787_521,
    ("gfl_r18_tiny", 5): 786_076,
    ("gfl_r18_small", 10): 2_891_473,
    ("nanodet_tiny", 10): 258_296,
    ("nanodet_plus_m_0.5x", 20): 495_664,
    ("nanodet_plus_m", 20): 1_174_644,
    ("nanodet_plus_m_1.5x", 20): 2_446_832,
    ("yoloy_tiny", 10): 1_001_053,
    ("yoloy_r18", 80): 15_932_095,
    ("yoloy_r50", 80): 71_026_623,
    ("yolox_tiny", 80): 5_055_855,
    ("yolox_s", 80): 8_968_255,
    ("gfl_r34_small", 10): 5_420_369,
    ("gfl_r18", 80): 19_420_889,
    ("gfl_r34", 80): 29_529_049,
    ("gfl_r50", 80): 32_440_537,
    ("gfl_r101", 80): 51_432_665,
    ("gfl_r101_dcn", 80): 52_718_837,
    ("gflv2_r18_tiny", 10): 787_521 + 1_409,
    ("gflv2_r18", 80): 19_420_889 + 1_409,
    ("gflv2_r34", 80): 29_529_049 + 1_409,
    ("gflv2_r50", 80): 32_441_946,
    ("gflv2_r101", 80): 51_432_665 + 1_409,
}


@pytest.fixture(scope="module")
def five() -> BaseDetector:
    return tiny(5)


@pytest.fixture
def weights(five: BaseDetector) -> StateDict:
    return five.state_dict()


@pytest.mark.parametrize(("name", "num_classes"), NUM_PARAMETERS)
def test_a_detector_has_as_many_parameters_as_published_or_counted(name: str, num_classes: int) -> None:
    entry = DETECTORS[name]
    with torch.device("meta"):
        detector = MODELS.build(ConfigDict(load(entry.target)(num_classes, entry.recipe, **entry.options)))
    assert sum(p.numel() for p in detector.parameters()) == NUM_PARAMETERS[name, num_classes]


def test_every_detector_is_counted() -> None:
    assert {name for name, _ in NUM_PARAMETERS} == set(DETECTORS)


@pytest.mark.parametrize("new_row_init", ["focal_prior", "torch_default", "mean_old"])
def test_growing_changes_nothing_but_new_rows(weights: StateDict, new_row_init: str) -> None:
    before = {name: value.clone() for name, value in weights.items()}
    result = grown("gfl_r18_tiny", weights, 8, new_row_init)
    assert result.keys() == weights.keys()
    assert (len(result[WEIGHT]), len(result[BIAS])) == (8, 8)
    for name, value in before.items():
        assert torch.equal(weights[name], value)  # what came in is as it was
        assert torch.equal(result[name][:5] if name in (WEIGHT, BIAS) else result[name], value)
    load_weights(tiny(8), result, "grown")


def test_focal_prior_says_one_percent(weights: StateDict) -> None:
    result = grown("gfl_r18_tiny", weights, 205, "focal_prior")
    assert result[BIAS][5:].sigmoid().tolist() == pytest.approx([0.01] * 200)
    rows = result[WEIGHT][5:]
    assert rows.mean().item() == pytest.approx(0, abs=2e-4)
    assert rows.std().item() == pytest.approx(0.01, rel=0.02)


def test_torch_default_is_a_fresh_convolution(weights: StateDict) -> None:
    result = grown("gfl_r18_tiny", weights, 205, "torch_default")
    bound = 1 / math.sqrt(32 * 3 * 3)
    for values in (result[WEIGHT][5:], result[BIAS][5:]):
        assert bound * 0.98 < values.abs().max() <= bound
        assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_mean_old_is_the_mean_of_the_old_rows(weights: StateDict) -> None:
    result = grown("gfl_r18_tiny", weights, 7, "mean_old")
    for row in (5, 6):
        torch.testing.assert_close(result[WEIGHT][row], weights[WEIGHT].mean(0))
        torch.testing.assert_close(result[BIAS][row], weights[BIAS].mean())


@pytest.mark.parametrize("new_row_init", ["focal_prior", "torch_default"])
def test_new_rows_follow_the_seed(weights: StateDict, new_row_init: str) -> None:
    def rows(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return grown("gfl_r18_tiny", weights, 7, new_row_init)[WEIGHT][5:]

    assert torch.equal(rows(1), rows(1))
    assert not torch.equal(rows(1), rows(2))


@pytest.mark.parametrize("new_row_init", ["focal_prior", "torch_default", "mean_old"])
def test_growing_by_nothing_is_a_copy(weights: StateDict, new_row_init: str) -> None:
    result = grown("gfl_r18_tiny", weights, 5, new_row_init)
    assert all(torch.equal(result[name], value) for name, value in weights.items())


def test_a_classifier_does_not_shrink(weights: StateDict) -> None:
    with pytest.raises(CheckpointError, match="weights hold 5 classes, more than the 4 of this step"):
        grown("gfl_r18_tiny", weights, 4, "focal_prior")


def test_a_grown_detector_says_the_same_of_old_classes(five: BaseDetector, weights: StateDict) -> None:
    larger = tiny(8, seed=1)
    load_weights(larger, grown("gfl_r18_tiny", weights, 8, "focal_prior"), "grown")
    with torch.no_grad():
        before, after = (GFL.forward(detector.eval(), images(2)) for detector in (five, larger))
    torch.testing.assert_close(after.cls_logits[..., :5], before.cls_logits)
    torch.testing.assert_close(after.box_logits, before.box_logits)


def test_three_steps_grow_and_load(weights: StateDict) -> None:
    for num_classes in (7, 10):
        weights = grown("gfl_r18_tiny", weights, num_classes, "torch_default")
        detector = tiny(num_classes)
        load_weights(detector, weights, "the step before")
        weights = detector.state_dict()
    assert len(weights[WEIGHT]) == 10


def test_all_misfits_are_named_at_once(five: BaseDetector, weights: StateDict) -> None:
    before = five.state_dict()[WEIGHT].clone()
    wrong = weights | {WEIGHT: torch.zeros(7, 32, 3, 3), "teacher.scale": torch.zeros(1)}
    del wrong[BIAS]
    with pytest.raises(CheckpointError) as raised:
        load_weights(five, wrong, "base.pt")
    assert raised.value.subject == "base.pt"
    assert set(raised.value.problems) == {
        f"tensor {BIAS} is missing",
        "tensor teacher.scale is not part of this detector",
        f"tensor {WEIGHT} must have shape (5, 32, 3, 3), but has (7, 32, 3, 3)",
    }
    assert torch.equal(five.state_dict()[WEIGHT], before)


def test_many_misfits_are_counted(five: BaseDetector, weights: StateDict) -> None:
    with pytest.raises(CheckpointError) as raised:
        load_weights(five, {}, "empty.pt")
    assert len(raised.value.problems) == 11
    assert raised.value.problems[-1] == f"... and {len(weights) - 10} more"


def test_a_frozen_detector_rests() -> None:
    detector = frozen(tiny(5))
    assert not any(module.training for module in detector.modules())
    assert not any(p.requires_grad for p in detector.parameters())
