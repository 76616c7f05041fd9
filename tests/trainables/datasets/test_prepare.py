from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.datasets.conftest import Coco, left_aside, pets, write_image
from trainables.datasets import DataConfig, Splits, prepare
from trainables.datasets.annotations import load, read
from trainables.datasets.splits import PARTS
from trainables.errors import DataError
from trainables.scenarios import VOC


def image_ids(path: Path) -> list[int]:
    return [image["id"] for image in read(path)["images"]]


def file_names(path: Path) -> set[str]:
    return {image["file_name"] for image in read(path)["images"]}


def assert_loadable(splits: Splits) -> None:
    for part in PARTS:
        split = getattr(splits, part)
        load(split.annotations, split.images)


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


# PASCAL VOC in its official layout


def voc_xml(objects: list[tuple[str, tuple[Any, Any, Any, Any], int]]) -> str:
    body = "".join(
        f"<object><name>{name}</name><pose>Left</pose><truncated>1</truncated><difficult>{difficult}</difficult>"
        f"<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>"
        "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>"
        for name, (x1, y1, x2, y2), difficult in objects
    )
    return f"<annotation><size><width>64</width><height>48</height><depth>3</depth></size>{body}</annotation>"


def voc_year(devkit: Path, year: str, lists: dict[str, list[str]]) -> None:
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (devkit / year / folder).mkdir(parents=True)
    for name, stems in lists.items():
        (devkit / year / "ImageSets" / "Main" / f"{name}.txt").write_text("".join(f"{stem}\n" for stem in stems))
    for number, stem in enumerate(sorted({stem for stems in lists.values() for stem in stems})):
        objects = [("dog", (1, 1, 64, 48), 0), (VOC[number % 20], ("10.6", 11, 20, 31), number % 2)]
        (devkit / year / "Annotations" / f"{stem}.xml").write_text(voc_xml(objects))
        write_image(devkit / year / "JPEGImages" / f"{stem}.jpg")


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "VOCdevkit"
    voc_year(folder, "VOC2007", {"trainval": [f"{n:06d}" for n in range(20)], "test": ["000900", "000901"]})
    return folder


def test_voc_2007(devkit: Path, tmp_path: Path) -> None:
    splits = prepare(DataConfig(kind="voc", root=str(tmp_path / "data")), tmp_path / "work")
    train, tune, test = (file_names(getattr(splits, part).annotations) for part in PARTS)
    assert (len(train), len(tune), train & tune) == (18, 2, set())
    assert train | tune == {f"VOC2007/JPEGImages/{n:06d}.jpg" for n in range(20)}
    assert test == {"VOC2007/JPEGImages/000900.jpg", "VOC2007/JPEGImages/000901.jpg"}
    assert splits.class_names == VOC
    assert_loadable(splits)
    boxes = read(splits.test.annotations)["annotations"]
    assert [box["bbox"] for box in boxes[:2]] == [[0, 0, 63, 47], [9, 10, 10, 20]]
    assert [box["iscrowd"] for box in boxes] == [0, 0, 0, 1]
    assert boxes[0]["category_id"] == VOC.index("dog") + 1


def test_voc_2007_and_2012_learn_from_both(devkit: Path, tmp_path: Path) -> None:
    voc_year(
        devkit,
        "VOC2012",
        {"trainval": ["2008_000001", "2008_000002"], "train": ["2008_000001"], "val": ["2008_000002"]},
    )
    splits = prepare(DataConfig(kind="voc", root=str(devkit), num_tune=1), tmp_path / "work")
    learnt = file_names(splits.train.annotations) | file_names(splits.tune.annotations)
    assert len(learnt) == 22
    assert "VOC2012/JPEGImages/2008_000002.jpg" in learnt
    assert all(name.startswith("VOC2007/") for name in file_names(splits.test.annotations))


def test_changed_voc_annotations_are_prepared_anew(devkit: Path, tmp_path: Path) -> None:
    config = DataConfig(kind="voc", root=str(devkit))
    first = prepare(config, tmp_path / "work")
    assert prepare(config, tmp_path / "work") == first
    (devkit / "VOC2007" / "Annotations" / "000900.xml").write_text(voc_xml([("cat", (5, 5, 20, 20), 0)]))
    second = prepare(config, tmp_path / "work")
    assert second.test.digest != first.test.digest
    assert second.train.digest == first.train.digest


def test_voc_2012_alone_keeps_val_for_the_test(tmp_path: Path) -> None:
    lists = {"trainval": ["a", "b", "c"], "train": ["a", "b"], "val": ["c"]}
    voc_year(tmp_path / "VOCdevkit", "VOC2012", lists)
    splits = prepare(DataConfig(kind="voc", root=str(tmp_path), num_tune=1), tmp_path / "work")
    learnt = file_names(splits.train.annotations) | file_names(splits.tune.annotations)
    assert learnt == {"VOC2012/JPEGImages/a.jpg", "VOC2012/JPEGImages/b.jpg"}
    assert file_names(splits.test.annotations) == {"VOC2012/JPEGImages/c.jpg"}


BOMB = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]>' + voc_xml([])
XML_FAULTS = {
    "doctype": (BOMB.encode(), "must not have a DOCTYPE"),
    "doctype in utf-16": (BOMB.encode("utf-16"), "must not have a DOCTYPE"),
    "file entity": (b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><a>&x;</a>', "must not have a DOCTYPE"),
    "large": (voc_xml([]).encode() + b" " * (1 << 20), "must have at most 1048576 bytes"),
    "torn": (voc_xml([]).encode()[:30], "unclosed token"),
    "class": (
        voc_xml([("unicorn", (1, 1, 2, 2), 0)]).encode(),
        "object name 'unicorn' is unknown; available: aeroplane",
    ),
    "coordinate": (
        voc_xml([("dog", ("left", 1, 2, 2), 0)]).encode(),
        "bndbox/xmin must be a number of pixels, but got 'left'",
    ),
    "infinite": (
        voc_xml([("dog", (1, 1, "inf", 2), 0)]).encode(),
        "bndbox/xmax must be a number of pixels, but got 'inf'",
    ),
    "size": (b"<annotation></annotation>", "size/width must be a number of pixels, but got None"),
}


@pytest.mark.parametrize("name", XML_FAULTS)
def test_xml_faults_name_the_file(name: str, devkit: Path, tmp_path: Path) -> None:
    content, message = XML_FAULTS[name]
    (devkit / "VOC2007" / "Annotations" / "000003.xml").write_bytes(content)
    (devkit / "VOC2007" / "JPEGImages" / "000901.jpg").unlink()
    with pytest.raises(DataError) as error:
        prepare(DataConfig(kind="voc", root=str(devkit)), tmp_path / "work")
    assert f"VOC2007/Annotations/000003.xml: {message}" in str(error.value)
    assert "there is no 'VOC2007/JPEGImages/000901.jpg'" in str(error.value)
    assert list((tmp_path / "work").iterdir()) == []


def test_a_list_leads_nowhere_else(devkit: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.xml").write_text(voc_xml([("dog", (1, 1, 2, 2), 0)]))
    with (devkit / "VOC2007" / "ImageSets" / "Main" / "test.txt").open("a") as file:
        file.write(f"../../../secret\n{tmp_path}/secret\n")
    with pytest.raises(DataError, match="2 errors") as error:
        prepare(DataConfig(kind="voc", root=str(devkit)), tmp_path / "work")
    assert all(line.endswith("the list test.txt must hold names, but holds a path") for line in error.value.problems)


def test_a_folder_without_voc_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 errors") as error:
        prepare(DataConfig(kind="voc", root=str(tmp_path)), tmp_path / "work")
    assert "test.txt" in error.value.problems[0]


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
