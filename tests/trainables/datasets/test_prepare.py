"""From what a person has to three checked COCO files: COCO itself, any data in its format, digits."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.datasets.files import Coco, assert_loadable, file_names, image_ids, left_aside, pets, write_image
from trainables.datasets import DataConfig, prepare
from trainables.datasets.annotations import read
from trainables.datasets.splits import PARTS
from trainables.errors import DataError

# COCO 2017 in its official layout


def official_coco(root: Path) -> Path:
    (root / "annotations").mkdir(parents=True)
    for name, count in (("train2017", 12), ("val2017", 4)):
        images = [
            {"id": 7 * n, "file_name": f"{7 * n:012d}.jpg", "width": 64, "height": 48} for n in range(1, count + 1)
        ]
        boxes = [
            {
                "id": n,
                "image_id": 7 * n,
                "category_id": 90 if n % 2 else 1,
                "bbox": [1.5, 2, 8, 8],
                "area": 30.2,
                "iscrowd": 0,
            }
            for n in range(1, count + 1)
        ]
        boxes.append({"id": 999, "image_id": 14, "category_id": 1, "bbox": [3, 3, 0, 9], "area": 0, "iscrowd": 0})
        categories = [{"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}]
        coco = {"info": {}, "licenses": [], "images": images, "annotations": boxes, "categories": categories}
        (root / "annotations" / f"instances_{name}.json").write_text(json.dumps(coco))
        for image in images:
            write_image(root / name / str(image["file_name"]))
    return root


def test_coco_tune_is_a_part_of_train_and_val_is_the_test(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = official_coco(tmp_path / "coco")
    before = sorted(root.rglob("*"))
    config = DataConfig(kind="coco", root=str(root), num_tune=3)
    with caplog.at_level(logging.WARNING):
        splits = prepare(config, tmp_path / "work")
    assert caplog.text.count("dropped 1 boxes without an area") == 2
    train, tune, test = (image_ids(getattr(splits, part).annotations) for part in PARTS)
    assert len(tune) == 3
    assert sorted(train + tune) == [7 * n for n in range(1, 13)]
    assert test == [7, 14, 21, 28]
    assert splits.class_names == ("person", "toothbrush")
    assert (splits.train.images, splits.tune.images, splits.test.images) == (
        root / "train2017",
        root / "train2017",
        root / "val2017",
    )
    assert_loadable(splits)
    assert sorted(root.rglob("*")) == before


def test_the_tune_part_follows_the_seed_and_is_built_once(tmp_path: Path) -> None:
    root = str(official_coco(tmp_path / "coco"))
    first = prepare(DataConfig(kind="coco", root=root, num_tune=4), tmp_path / "work")
    built = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*")}
    assert prepare(DataConfig(kind="coco", root=root, num_tune=4), tmp_path / "work") == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*")} == built
    again = prepare(DataConfig(kind="coco", root=root, num_tune=4), tmp_path / "elsewhere")
    assert [getattr(again, part).digest for part in PARTS] == [getattr(first, part).digest for part in PARTS]
    other = prepare(DataConfig(kind="coco", root=root, num_tune=4, seed=1), tmp_path / "work")
    assert other.tune.digest != first.tune.digest


def test_changed_annotations_are_prepared_anew(tmp_path: Path) -> None:
    root = official_coco(tmp_path / "coco")
    config = DataConfig(kind="coco", root=str(root), num_tune=4)
    first = prepare(config, tmp_path / "work")
    path = root / "annotations" / "instances_val2017.json"
    coco = read(path)
    coco["annotations"][0]["bbox"] = [0, 0, 5, 5]
    path.write_text(json.dumps(coco))
    second = prepare(config, tmp_path / "work")
    assert second.test.digest != first.test.digest
    assert second.train.digest == first.train.digest


def test_a_tune_part_as_large_as_train_is_refused(tmp_path: Path) -> None:
    config = DataConfig(kind="coco", root=str(official_coco(tmp_path / "coco")))
    with pytest.raises(DataError, match=r"`0 < num_tune < 12` \(train images\) must hold, but got 5000"):
        prepare(config, tmp_path / "work")
    assert list((tmp_path / "work").iterdir()) == []


def test_missing_official_files_are_named_together(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        prepare(DataConfig(kind="coco", root=str(tmp_path)), tmp_path / "work")
    assert ["instances_train2017" in error.value.problems[0], "instances_val2017" in error.value.problems[1]] == [
        True
    ] * 2


# any data set in COCO format


def custom(folder: Path, **changes: Any) -> DataConfig:
    paths = {
        "train_annotations": "train.json",
        "train_images": "pets",
        "test_annotations": "test.json",
        "test_images": "pets",
    }
    return DataConfig(kind="custom", root=str(folder), **(paths | changes))


def write_pets(folder: Path, train: Coco, test: Coco) -> None:
    (folder / "train.json").write_text(json.dumps(train), encoding="utf-8")
    (folder / "test.json").write_text(json.dumps(test, ensure_ascii=False), encoding="utf-8")


def test_custom_data_with_sub_folders_and_unicode_names(tmp_path: Path, pets_images: Path) -> None:
    write_pets(tmp_path, pets(), pets())
    splits = prepare(custom(tmp_path, num_tune=2), tmp_path / "work")
    train, tune, test = (image_ids(getattr(splits, part).annotations) for part in PARTS)
    assert (len(train), len(tune), len(test)) == (3, 2, 5)
    assert sorted(train + tune) == sorted(test)
    assert "Zürich 東京.png" in file_names(splits.test.annotations)
    assert splits.class_names == ("dog", "bird", "cat")
    assert_loadable(splits)


def test_custom_data_with_their_own_tune_split(tmp_path: Path, pets_images: Path) -> None:
    write_pets(tmp_path, pets(), pets())
    splits = prepare(custom(tmp_path, tune_annotations="test.json", tune_images="pets"), tmp_path / "work")
    assert all(image_ids(getattr(splits, part).annotations) == image_ids(tmp_path / "test.json") for part in PARTS)


def test_all_faults_of_all_files_at_once_and_nothing_is_left(tmp_path: Path, pets_images: Path) -> None:
    train, test = pets(), pets()
    train["annotations"][0]["category_id"] = 99
    train["annotations"][1]["bbox"] = [3, 3, 0, 9]
    test["images"][0]["file_name"] = "../a.png"
    write_pets(tmp_path, train, test)
    with pytest.raises(DataError) as error:
        prepare(custom(tmp_path), tmp_path / "work")
    text = str(error.value)
    assert text.startswith("data: 3 errors")
    assert f"{tmp_path / 'train.json'}: annotations[0].category_id" in text
    assert f"{tmp_path / 'train.json'}: annotations[1].bbox must have a width and a height above 0" in text
    assert f"{tmp_path / 'test.json'}: images[0].file_name must stay inside" in text
    assert list((tmp_path / "work").iterdir()) == []


# digits, and the configuration


def test_digits_are_kept_in_the_workspace_or_where_told(tmp_path: Path) -> None:
    in_workspace = prepare(DataConfig(kind="digits", sizes=(2, 1, 1)), tmp_path / "work")
    assert in_workspace.train.images.parent.parent == tmp_path / "work"
    told = prepare(DataConfig(kind="digits", sizes=(2, 1, 1), root=str(tmp_path / "here")), tmp_path / "work")
    assert told.train.images == tmp_path / "here" / "train"
    assert told.train.digest == in_workspace.train.digest
    assert left_aside(tmp_path) == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "imagenet"}, "kind: 'imagenet' is unknown; available: digits, coco, voc, custom"),
        ({"kind": "coco"}, "root: coco needs the folder"),
        ({"kind": "digits", "sizes": (1, 2)}, "sizes: three numbers above 0"),
        ({"kind": "digits", "seed": -1}, "seed: `0 <= seed` must hold, but got -1"),
        ({"kind": "voc", "root": "x", "num_tune": 0}, "num_tune: `1 <= num_tune` must hold, but got 0"),
        ({"kind": "digits", "train_images": "x"}, "train_images: only custom data have it, but kind is digits"),
        ({"kind": "custom", "tune_images": "x"}, "tune_annotations and tune_images: custom data need both"),
        ({"kind": "custom"}, "test_annotations and test_images: custom data need both"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as error:
        DataConfig(**fields)
    assert any(message in problem for problem in error.value.problems)


def test_a_configuration_survives_plain_data() -> None:
    config = DataConfig(kind="voc", root="data", num_tune=5)
    assert DataConfig(**asdict(config)) == config


def test_the_package_loads_without_torch_and_numpy() -> None:
    code = "import sys, trainables.datasets; print(sorted({'torch', 'numpy', 'mmdet', 'cv2'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
