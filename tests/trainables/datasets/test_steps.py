"""Which images and boxes a step learns from and is scored on."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainables.datasets.files import pets
from trainables.datasets.steps import evaluation_set, is_object, subset, training_set
from trainables.errors import DataError


def ids(entries: list[dict[str, Any]]) -> list[int]:
    return [entry["id"] for entry in entries]


def test_training_keeps_images_with_an_object_of_the_step_and_boxes_of_the_step_alone() -> None:
    step = training_set(pets(), ["cat"])
    assert ids(step["images"]) == [30, 20]  # 6 holds a crowd of cats alone, 10 a bird
    assert ids(step["annotations"]) == [4, 1]  # no dog, not even the crowd of dogs in image 20
    assert step["categories"] == [{"id": 17, "name": "cat"}]
    assert (step["info"], step["licenses"]) == ({"year": 2024}, [{"id": 7}])


def test_training_keeps_crowds_of_the_step_as_regions_to_ignore() -> None:
    step = training_set(pets(), ["dog", "cat"])
    assert ids(step["images"]) == [30, 20]
    assert ids(step["annotations"]) == [4, 2, 1, 7]
    assert [category["name"] for category in step["categories"]] == ["dog", "cat"]


def test_evaluation_keeps_every_image() -> None:
    seen = evaluation_set(pets(), ["cat", "bird"])
    assert seen["images"] == pets()["images"]
    assert ids(seen["annotations"]) == [4, 9, 1, 8]
    assert seen["categories"] == [{"id": 17, "name": "cat"}, {"id": 3, "name": "bird"}]


@pytest.mark.parametrize("cut", [training_set, evaluation_set])
def test_an_unknown_class_is_refused(cut: Any) -> None:
    with pytest.raises(DataError, match="no category is named 'horse'; available: dog, bird, cat"):
        cut(pets(), ["cat", "horse"])


def test_a_subset_keeps_all_categories_and_annotations_of_its_images() -> None:
    part = subset(pets(), {20, 5})
    assert (ids(part["images"]), ids(part["annotations"])) == ([20, 5], [1, 7])
    assert part["categories"] == pets()["categories"]


ANNOTATION = st.fixed_dictionaries(
    {
        "image_id": st.integers(0, 5),
        "category_id": st.integers(0, 4),
        "bbox": st.tuples(*[st.integers(0, 9)] * 4).map(list),
        "iscrowd": st.integers(0, 1),
    }
)


@st.composite
def cocos(draw: st.DrawFn) -> dict[str, Any]:
    annotations = draw(st.lists(ANNOTATION, max_size=20))
    order = draw(st.permutations(range(5)))
    return {
        "images": [{"id": number} for number in draw(st.permutations(range(6)))],
        "annotations": [annotation | {"id": number} for number, annotation in enumerate(annotations)],
        "categories": [{"id": number, "name": f"class {number}"} for number in order],
    }


@given(cocos(), st.sets(st.integers(0, 4)), st.sets(st.integers(0, 4)))
def test_sets_of_steps_unite_repeat_and_leave_their_source_alone(
    coco: dict[str, Any], one: set[int], other: set[int]
) -> None:
    before = copy.deepcopy(coco)
    first, second, both = ([f"class {number}" for number in part] for part in (one, other, one | other))
    union = set(ids(training_set(coco, first)["images"])) | set(ids(training_set(coco, second)["images"]))
    assert set(ids(training_set(coco, both)["images"])) == union
    step = training_set(coco, first)
    assert training_set(step, first) == step
    assert all(annotation["category_id"] in one for annotation in step["annotations"])
    assert {a["image_id"] for a in step["annotations"] if is_object(a)} == set(ids(step["images"]))
    assert training_set(evaluation_set(coco, both), first) == step
    assert coco == before
