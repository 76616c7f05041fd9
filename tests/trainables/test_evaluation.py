from __future__ import annotations

import contextlib
import copy
import io
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from trainables.errors import DataError
from trainables.evaluation import Evaluation, evaluate
from trainables.metrics import KINDS, FloatArray

Truth = dict[str, Any]
Found = list[dict[str, Any]]

CATEGORY_IDS = [71, 5, 23, 12]  # neither sorted nor contiguous; 12 has no ground truth in `scenes`
NUM_SEEDS = 8


def box(rng: np.random.Generator) -> list[float]:
    side, ratio = np.exp(rng.uniform(np.log(8), np.log(250))), np.exp(rng.uniform(-0.6, 0.6))
    return [float(value) for value in (*rng.uniform(0, 390, 2), side * ratio, side / ratio)]


def scenes(seed: int, num_boxes: int = 40, num_found: int = 200) -> tuple[Truth, Found]:
    """Random images with crowds, and detections near and far, with tied scores for odd seeds."""
    rng = np.random.default_rng(seed)
    image_ids = rng.permutation(900)[:6].tolist()
    annotations: Found = []
    for _ in range(num_boxes):
        x, y, width, height = box(rng)
        annotations.append(
            {
                "id": 3 + 7 * len(annotations),
                "image_id": int(rng.choice(image_ids)),
                "category_id": int(rng.choice(CATEGORY_IDS[:3])),
                "bbox": [x, y, width, height],
                "area": width * height * rng.uniform(0.5, 1),
                "iscrowd": int(rng.random() < 0.15),
            }
        )
    found = []
    for _ in range(num_found):
        near = annotations[rng.integers(num_boxes)] if num_boxes and rng.random() < 0.6 else None
        score = float(rng.random())
        found.append(
            {
                "image_id": near["image_id"] if near else int(rng.choice(image_ids)),
                "category_id": near["category_id"] if near else int(rng.choice(CATEGORY_IDS)),
                "bbox": (np.array(near["bbox"]) * rng.uniform(0.88, 1.12, 4)).tolist() if near else box(rng),
                "score": round(score, 1) if seed % 2 else score,
            }
        )
    truth = {
        "images": [{"id": image_id, "width": 640, "height": 640} for image_id in image_ids],
        "categories": [{"id": category_id, "name": str(category_id)} for category_id in CATEGORY_IDS],
        "annotations": annotations,
    }
    return truth, found


def pycocotools_evaluate(
    truth: Truth, found: Found, category_ids: list[int], image_ids: list[int] | None = None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """COCOeval's summary, and its precision and recall with the classes in the order of `category_ids`."""
    with contextlib.redirect_stdout(io.StringIO()):
        expected, results = COCO(), COCO()
        expected.dataset = copy.deepcopy(truth)
        results.dataset = {**copy.deepcopy(truth), "annotations": []}
        expected.createIndex()
        results.createIndex()
        if found:
            results = expected.loadRes(copy.deepcopy(found))
        evaluator = COCOeval(expected, results, "bbox")
        evaluator.params.catIds = category_ids
        evaluator.params.imgIds = image_ids or evaluator.params.imgIds
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    columns = [sorted(category_ids).index(category_id) for category_id in category_ids]
    return evaluator.stats, evaluator.eval["precision"][:, :, columns], evaluator.eval["recall"][:, columns]


def mean_of_defined(values: FloatArray) -> float:
    return float(values[values > -1].mean()) if (values > -1).any() else np.nan


def assert_equals_pycocotools(got: Evaluation, expected: tuple[FloatArray, FloatArray, FloatArray]) -> None:
    stats, precision, recall = expected
    np.testing.assert_allclose(got.stats, stats, rtol=0, atol=1e-12)
    for c in range(precision.shape[2]):
        of_class = {
            "ap": precision[:, :, c, 0, 2],
            "ap50": precision[0, :, c, 0, 2],
            "ap75": precision[5, :, c, 0, 2],
            "ap_small": precision[:, :, c, 1, 2],
            "ap_medium": precision[:, :, c, 2, 2],
            "ap_large": precision[:, :, c, 3, 2],
            "ar1": recall[:, c, 0, 0],
            "ar10": recall[:, c, 0, 1],
            "ar100": recall[:, c, 0, 2],
            "ar_small": recall[:, c, 1, 2],
            "ar_medium": recall[:, c, 2, 2],
            "ar_large": recall[:, c, 3, 2],
        }
        assert list(got.per_class) == list(of_class)
        for kind, values in of_class.items():
            assert got.per_class[kind][c] == pytest.approx(mean_of_defined(values), abs=1e-12, nan_ok=True)
        by_iou = [mean_of_defined(at_iou) for at_iou in precision[:, :, c, 0, 2]]
        np.testing.assert_allclose(got.ap_by_iou[c], by_iou, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(NUM_SEEDS))
def test_every_figure_is_that_of_pycocotools(seed: int) -> None:
    truth, found = scenes(seed)
    assert_equals_pycocotools(evaluate(truth, found, CATEGORY_IDS), pycocotools_evaluate(truth, found, CATEGORY_IDS))


def test_more_than_a_hundred_detections_of_a_class_in_an_image() -> None:
    truth, found = scenes(0, num_found=3000)
    assert_equals_pycocotools(evaluate(truth, found, CATEGORY_IDS), pycocotools_evaluate(truth, found, CATEGORY_IDS))


@pytest.mark.parametrize("num_boxes", [0, 1])
@pytest.mark.parametrize("num_found", [0, 1])
def test_next_to_nothing(num_boxes: int, num_found: int) -> None:
    truth, found = scenes(2, num_boxes, num_found)
    assert_equals_pycocotools(evaluate(truth, found, CATEGORY_IDS), pycocotools_evaluate(truth, found, CATEGORY_IDS))


def test_subsets_of_classes_and_images() -> None:
    truth, found = scenes(3)
    classes, images = [23, 5], [truth["images"][0]["id"], truth["images"][4]["id"]]
    got = evaluate(truth, found, classes, images)
    assert_equals_pycocotools(got, pycocotools_evaluate(truth, found, classes, images))


@pytest.mark.parametrize("seed", range(NUM_SEEDS))
def test_a_class_scores_the_same_whatever_other_classes_are_asked_for(seed: int) -> None:
    truth, found = scenes(seed)
    whole, some = evaluate(truth, found, CATEGORY_IDS), evaluate(truth, found, [23, 71])
    for kind in KINDS:
        np.testing.assert_allclose(some.per_class[kind], whole.per_class[kind][[2, 0]], rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(NUM_SEEDS))
def test_the_summary_is_the_mean_over_classes(seed: int) -> None:
    got = evaluate(*scenes(seed), CATEGORY_IDS)
    means = [np.nanmean(of_class) for of_class in got.per_class.values()]
    np.testing.assert_allclose(got.stats, means, rtol=0, atol=1e-12)


def test_no_detection_is_zero_and_no_ground_truth_is_nan() -> None:
    got = evaluate(scenes(1)[0], [], CATEGORY_IDS)
    np.testing.assert_array_equal(got.per_class["ap"], [0, 0, 0, np.nan])
    assert got.stats[0] == 0


def test_perfect_detections_score_one() -> None:
    truth, _ = scenes(4)
    found = [
        {key: annotation[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.5}
        for annotation in truth["annotations"]
    ]
    np.testing.assert_allclose(evaluate(truth, found, CATEGORY_IDS).per_class["ap"], [1, 1, 1, np.nan])


def test_an_annotation_may_have_the_id_0() -> None:
    """pycocotools takes the id 0 for "matched with nothing" and would count a hit as a miss."""
    truth, found = scenes(5)
    from_0 = copy.deepcopy(truth)
    for number, annotation in enumerate(from_0["annotations"]):
        annotation["id"] = number
    np.testing.assert_array_equal(
        evaluate(from_0, found, CATEGORY_IDS).stats, evaluate(truth, found, CATEGORY_IDS).stats
    )


def test_inputs_stay_as_they_were_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    truth, found = scenes(6)
    before = copy.deepcopy((truth, found))
    evaluate(truth, found, CATEGORY_IDS)
    assert (truth, found) == before
    assert capfd.readouterr() == ("", "")


def test_everything_wrong_is_told_at_once() -> None:
    truth, found = scenes(7)
    found[3]["image_id"], found[4]["score"], found[5]["bbox"] = 9999, float("nan"), [0, 0, float("inf"), 1]
    with pytest.raises(DataError) as caught:
        evaluate(truth, found, [5, 6, 5])
    assert caught.value.problems == (
        "category_ids: 6 not in the ground truth",
        "category_ids: 5 given more than once",
        "detections: image_id 9999 not in the ground truth",
        "detections: boxes and scores must be finite, but 2 of 200 are not",
    )
