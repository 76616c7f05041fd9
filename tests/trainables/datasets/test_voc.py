"""PASCAL VOC in its official layout becomes COCO files; what is wrong with its files is told by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainables.datasets.files import assert_loadable, file_names, voc_xml, voc_year
from trainables.datasets import DataConfig, prepare
from trainables.datasets.annotations import read
from trainables.datasets.splits import PARTS
from trainables.errors import DataError
from trainables.scenarios import VOC


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "VOCdevkit"
    voc_year(folder, "VOC2007", {"trainval": [f"{n:06d}" for n in range(20)], "test": ["000900", "000901"]})
    return folder


def test_voc_2007_keeps_a_tenth_of_trainval_for_tuning(devkit: Path, tmp_path: Path) -> None:
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
