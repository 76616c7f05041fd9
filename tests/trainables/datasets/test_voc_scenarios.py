"""VOC's scenarios on files in VOC's own layout: who sees which images, which boxes, under which labels."""

from __future__ import annotations

import pytest

from tests.trainables.datasets.files import VocObject, voc_year
from trainables.datasets import DataConfig, Splits, prepare, steps
from trainables.datasets.detection import DetectionDataset
from trainables.environment import prepare_process
from trainables.pipelines import test_pipeline as pipeline_for_tests
from trainables.recipes import TINY
from trainables.scenarios import NAMED, VOC, named_scenario

SCENARIOS = [name for name in NAMED if name.startswith("voc/") and "+" in name]


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    """Eighty images, each with two classes in turn; every fourth one shows the second as difficult."""
    devkit, stems = tmp_path_factory.mktemp("voc") / "VOCdevkit", [f"{number:06d}" for number in range(160)]

    def objects(number: int) -> list[VocObject]:
        second = VOC[(number * 7 + 3) % 20]
        return [(VOC[number % 20], (2, 3, 20, 30), 0), (second, (11, 12, 40, 41), int(number % 4 == 3))]

    voc_year(devkit, "VOC2007", {"trainval": stems[:80], "test": stems[80:]}, objects)
    return prepare(DataConfig(kind="voc", root=str(devkit), num_tune=8), tmp_path_factory.mktemp("work"))


def shown(coco: steps.Coco, names: tuple[str, ...], difficult: bool = False) -> set[tuple[int, str]]:
    """Which image shows which of the classes."""
    classes = {category["id"]: category["name"] for category in coco["categories"]}
    pairs = {
        (one["image_id"], classes[one["category_id"]]) for one in coco["annotations"] if difficult or not one["iscrowd"]
    }
    return {(image, name) for image, name in pairs if name in names}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_step_sees_the_images_that_show_its_classes_and_of_them_those_boxes(splits: Splits, name: str) -> None:
    scenario, coco = named_scenario(name), splits.train.coco
    assert [one for step in scenario.steps for one in step] == sorted(VOC)
    for names in scenario.steps:
        data = steps.training_set(coco, names)
        assert shown(data, tuple(VOC)) == shown(coco, names)
        assert {image["id"] for image in data["images"]} == {image for image, _ in shown(coco, names)}
    seen = scenario.seen(1)
    truth = steps.evaluation_set(splits.test.coco, seen)
    assert len(truth["images"]) == 80
    assert shown(truth, tuple(VOC), difficult=True) == shown(splits.test.coco, seen, difficult=True)


def test_difficult_objects_are_ignored_and_truncated_ones_learnt(splits: Splits) -> None:
    prepare_process(threads=1)
    coco = splits.test.coco
    assert sum(one["iscrowd"] for one in coco["annotations"]) == 20
    assert len(coco["annotations"]) == 160  # every object is truncated
    dataset = DetectionDataset(coco, splits.test.images, VOC, pipeline_for_tests(TINY), test_mode=True)
    info = dataset.get_data_info(3)
    assert [one["ignore_flag"] for one in info["instances"]] == [0, 1]
    assert [one["bbox_label"] for one in info["instances"]] == [3, 4]
