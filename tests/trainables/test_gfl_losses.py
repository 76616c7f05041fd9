"""GFL's losses of the classes that a batch trains, against mmdet's own and by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from mmdet.models import SingleStageDetector
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from tests.trainables.batches import REG_MAX, SIDE, STRIDES, images, sample, tiny
from trainables.detectors.families import GFL
from trainables.detectors.forward import Forward, boxes_around, expected_distances, flatten_levels
from trainables.detectors.gfl_losses import GFLTerms, Targets, assign, distribution_focal, gfl_terms

NUM_CLASSES = 6
EVERYTHING = torch.ones(NUM_CLASSES, dtype=torch.bool)
NEW = torch.arange(NUM_CLASSES) >= 4
CPU = torch.device("cpu")
TWO = sample([(3.0, 5.0, 30.0, 33.0), (20.0, 28.0, 61.0, 60.0)], [5, 4])
ONE = sample([(10.0, 8.0, 28.0, 21.0)], [4])
NONE = sample([], [])
BATCHES = {
    "one image": [TWO],
    "three": [TWO, ONE, TWO],
    "one without objects": [TWO, NONE],
    "no object at all": [NONE, NONE],
}


@pytest.fixture(scope="module")
def detector() -> SingleStageDetector:
    return tiny(NUM_CLASSES)


@pytest.fixture(autouse=True)
def no_gradients_left(detector: SingleStageDetector) -> Iterator[None]:
    yield
    detector.zero_grad()


def output_of(detector: SingleStageDetector, count: int) -> Forward:
    return GFL.forward(detector, images(count))


def terms_of(
    detector: SingleStageDetector, batch: list[DetDataSample], channels: Tensor, **how: bool
) -> tuple[GFLTerms, Targets, Forward]:
    output = output_of(detector, len(batch))
    targets = assign(detector.bbox_head, batch, CPU)
    return gfl_terms(output, targets, channels, **how), targets, output


def test_a_forward_pass_keeps_places_apart(detector: SingleStageDetector) -> None:
    output = output_of(detector, 2)
    sizes = [(SIDE // stride) ** 2 for stride in STRIDES]
    assert output.level_sizes == tuple(sizes)
    assert output.cls_logits.shape == (2, sum(sizes), NUM_CLASSES)
    assert output.box_logits.shape == (2, sum(sizes), 4 * (REG_MAX + 1))
    cls_scores, bbox_preds = detector.bbox_head(detector.extract_feat(images(2)))
    for level, (stride, start) in enumerate(zip(STRIDES, (0, sizes[0], sizes[0] + sizes[1]), strict=True)):
        place = start + 1 * (SIDE // stride) + 0  # row 1, column 0
        assert output.centers[place].tolist() == [0, stride]
        assert output.strides[place] == stride
        torch.testing.assert_close(output.cls_logits[1, place], cls_scores[level][1, :, 1, 0])
        torch.testing.assert_close(output.box_logits[1, place], bbox_preds[level][1, :, 1, 0])


def test_levels_flatten_row_by_row() -> None:
    level = torch.arange(12.0).reshape(1, 2, 2, 3)
    assert flatten_levels([level, level[..., :1, :1]], 2)[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 0]


def test_a_sure_distribution_is_its_bin_and_a_box_lies_around_its_centre() -> None:
    logits = torch.full((4, 9), -100.0)
    logits[torch.arange(4), torch.tensor([0, 3, 8, 5])] = 100.0
    distances = expected_distances(logits.flatten())
    assert distances.tolist() == [0, 3, 8, 5]
    assert expected_distances(torch.zeros(2, 36)).tolist() == [[4, 4, 4, 4]] * 2
    assert boxes_around(torch.tensor([10.0, 20.0]), distances).tolist() == [10, 17, 18, 25]


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_with_every_channel_it_is_mmdets_own_loss(detector: SingleStageDetector, batch: list[DetDataSample]) -> None:
    terms, _, output = terms_of(detector, batch, EVERYTHING)
    own = detector.bbox_head.loss_by_feat(
        *detector.bbox_head(detector.extract_feat(images(len(batch)))),
        [image.gt_instances for image in batch],
        [image.metainfo for image in batch],
    )
    for name, values in (("loss_cls", terms.cls), ("loss_bbox", terms.bbox), ("loss_dfl", terms.dfl)):
        found = [level.sum().item() for level in values.split(output.level_sizes, dim=1)]
        assert found == pytest.approx([level.item() for level in own[name]], rel=1e-5, abs=1e-9)
    ours, mmdets = (
        torch.autograd.grad(total, detector.bbox_head.gfl_cls.weight)[0]
        for total in (terms.cls.sum() + terms.bbox.sum() + terms.dfl.sum(), sum(map(sum, own.values())))
    )
    torch.testing.assert_close(ours, mmdets, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_channels_left_out_get_exactly_no_gradient(detector: SingleStageDetector, batch: list[DetDataSample]) -> None:
    terms, _, _ = terms_of(detector, batch, NEW)
    (terms.cls.sum() + terms.bbox.sum() + terms.dfl.sum()).backward()
    classifier = detector.bbox_head.gfl_cls
    assert (classifier.weight.grad[:4] == 0).all()
    assert (classifier.bias.grad[:4] == 0).all()
    assert (classifier.weight.grad[4:] != 0).any()
    assert all(torch.isfinite(p.grad).all() for p in detector.parameters() if p.grad is not None)


def test_channels_left_out_weigh_nothing_in_a_box(detector: SingleStageDetector) -> None:
    output = output_of(detector, 1)
    targets = assign(detector.bbox_head, [TWO], CPU)
    louder = output.cls_logits.clone()
    louder[..., :4] += 5
    expected, found = gfl_terms(output, targets, NEW), gfl_terms(replace(output, cls_logits=louder), targets, NEW)
    for name in ("cls", "bbox", "dfl"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


def test_a_label_that_no_channel_trains_is_refused(detector: SingleStageDetector) -> None:
    with pytest.raises(ValueError, match=r"labels \[4, 5\] are outside the channels that their images train"):
        terms_of(detector, [TWO, NONE], ~NEW)
    terms_of(detector, [NONE], ~NEW)


def test_terms_lie_where_their_places_are(detector: SingleStageDetector) -> None:
    terms, targets, _ = terms_of(detector, [TWO, NONE], EVERYTHING)
    positive = targets.labels < targets.background
    assert 0 < positive.sum() == positive[0].sum()
    assert set(targets.labels[positive].tolist()) == {4, 5}
    for values in (terms.bbox, terms.dfl):
        assert (values[positive] > 0).all()
        assert (values[~positive] == 0).all()
    assert (terms.cls > 0).all()


def test_the_normaliser_counts_an_image_without_objects_as_one(detector: SingleStageDetector) -> None:
    both, alone = (terms_of(detector, batch, EVERYTHING)[1] for batch in ([TWO, NONE], [TWO]))
    assert both.num_pos == alone.num_pos + 1


def test_ignored_objects_are_no_targets(detector: SingleStageDetector) -> None:
    crowded = sample([(3.0, 5.0, 30.0, 33.0)], [5])
    crowded.ignored_instances = InstanceData(bboxes=torch.tensor([[20.0, 28.0, 61.0, 60.0]]))
    _, targets, _ = terms_of(detector, [crowded], EVERYTHING)
    assert set(targets.labels.unique().tolist()) == {5, NUM_CLASSES}


def test_without_the_clamp_an_empty_batch_is_not_a_number(detector: SingleStageDetector) -> None:
    unguarded, _, _ = terms_of(detector, [NONE], EVERYTHING, normaliser="plain")
    clamped, _, _ = terms_of(detector, [NONE], EVERYTHING)
    assert unguarded.bbox.sum().isnan()
    assert clamped.bbox.sum() == clamped.dfl.sum() == 0


def test_without_the_clamp_the_weights_of_the_boxes_cancel(detector: SingleStageDetector) -> None:
    clamped, targets, output = terms_of(detector, [ONE], EVERYTHING)
    unclamped, _, _ = terms_of(detector, [ONE], EVERYTHING, normaliser="plain")
    weights = output.cls_logits.sigmoid().amax(-1)[targets.labels < targets.background]
    assert weights.sum() < 1
    assert unclamped.bbox.sum().item() == pytest.approx(clamped.bbox.sum().item() / weights.sum().item(), rel=1e-5)


def test_the_epsilon_in_averages_is_float32s(detector: SingleStageDetector) -> None:
    output = output_of(detector, 1)
    targets = assign(detector.bbox_head, [TWO], CPU)
    precise = Forward(*(value.double() for value in list(vars(output).values())[:4]), output.level_sizes)
    wanted = replace(targets, weights=targets.weights.double(), boxes=targets.boxes.double())
    with_eps, without = (gfl_terms(precise, wanted, EVERYTHING, average_eps=eps) for eps in (True, False))
    epsilon = torch.finfo(torch.float32).eps
    for name, divisor in (("cls", targets.num_pos), ("dfl", 4)):
        ratio = getattr(without, name).sum() / getattr(with_eps, name).sum()
        assert ratio.item() - 1 == pytest.approx(epsilon / divisor, rel=1e-3)


def test_weights_and_beta_act_on_their_own_term(detector: SingleStageDetector) -> None:
    output = output_of(detector, 1)
    targets = assign(detector.bbox_head, [TWO], CPU)
    plain = gfl_terms(output, targets, EVERYTHING, weights=(1.0, 1.0, 1.0))
    scaled = gfl_terms(output, targets, EVERYTHING, weights=(2.0, 3.0, 4.0))
    torch.testing.assert_close(scaled.cls, 2 * plain.cls)
    torch.testing.assert_close(scaled.bbox, 3 * plain.bbox)
    torch.testing.assert_close(scaled.dfl, 4 * plain.dfl)
    assert gfl_terms(output, targets, EVERYTHING, beta=1.0).cls.sum() > plain.cls.sum()


def test_distribution_focal_shares_two_bins_by_nearness() -> None:
    logits = torch.randn(3, 9, generator=torch.Generator().manual_seed(0))
    distances = torch.tensor([0.0, 3.25, 7.9])
    minus_log = -logits.log_softmax(-1)
    expected = [
        minus_log[0, 0],
        0.75 * minus_log[1, 3] + 0.25 * minus_log[1, 4],
        0.1 * minus_log[2, 7] + 0.9 * minus_log[2, 8],
    ]
    assert distribution_focal(logits, distances).tolist() == pytest.approx(torch.stack(expected).tolist(), rel=1e-5)


def test_named_losses_are_the_sums_of_their_terms(detector: SingleStageDetector) -> None:
    terms, targets, output = terms_of(detector, [TWO, ONE], NEW)
    found = GFL.losses(output, assign(detector.bbox_head, [TWO, ONE], CPU), NEW)
    assert found["loss_cls"] == terms.cls.sum()
    assert found["loss_bbox"] == terms.bbox.sum()
    assert found["loss_dfl"] == terms.dfl.sum()
    assert found["n_pos"] == (targets.labels < targets.background).sum() / 2
