"""Every figure of COCO as pycocotools has it, on random scenes and at the edges."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.bench.evaluation import coco_like, max_difference, pycocotools_evaluate
from trainables.errors import DataError
from trainables.evaluation import evaluate
from trainables.metrics import KINDS

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


def assert_equals_pycocotools(
    truth: Truth, found: Found, category_ids: list[int], image_ids: list[int] | None = None
) -> None:
    got = evaluate(truth, found, category_ids, image_ids)
    expected = pycocotools_evaluate(*copy.deepcopy((truth, found)), category_ids, image_ids)
    assert max_difference(got, expected) <= 1e-12


@pytest.mark.parametrize("seed", range(NUM_SEEDS))
def test_every_figure_is_that_of_pycocotools(seed: int) -> None:
    assert_equals_pycocotools(*scenes(seed), CATEGORY_IDS)


def test_every_figure_of_a_coco_like_set_is_that_of_pycocotools() -> None:
    truth, found = coco_like(num_images=150, num_classes=40, num_found=50)
    category_ids = [category["id"] for category in truth["categories"]]
    assert_equals_pycocotools(truth, found, category_ids)
    assert (evaluate(truth, found, category_ids).stats > 0).all()


def test_of_a_class_the_best_hundred_detections_in_an_image_count() -> None:
    assert_equals_pycocotools(*scenes(0, num_found=3000), CATEGORY_IDS)


@pytest.mark.parametrize("num_boxes", [0, 1])
@pytest.mark.parametrize("num_found", [0, 1])
def test_one_box_or_none_and_one_detection_or_none_score_as_in_pycocotools(num_boxes: int, num_found: int) -> None:
    assert_equals_pycocotools(*scenes(2, num_boxes, num_found), CATEGORY_IDS)


def test_only_the_classes_and_images_asked_for_are_scored() -> None:
    truth, found = scenes(3)
    classes, images = [23, 5], [truth["images"][0]["id"], truth["images"][4]["id"]]
    assert_equals_pycocotools(truth, found, classes, images)


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


@pytest.mark.parametrize("sequence", [tuple, np.array])
def test_a_box_may_be_any_sequence(sequence: Callable[[list[float]], Any]) -> None:
    truth, found = scenes(5)
    expected = evaluate(truth, found, CATEGORY_IDS)
    for record in (*truth["annotations"], *found):
        record["bbox"] = sequence(record["bbox"])
    assert max_difference(evaluate(truth, found, CATEGORY_IDS), expected) == 0


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
