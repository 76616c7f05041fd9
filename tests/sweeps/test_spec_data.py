"""Where a sweep file says its data and weights are, and what is told where they are not."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from sweeps.spec_file import Data
from tests.sweeps.sweep_files import problems_of, spec_of, the_problem
from trainables.datasets import DataConfig, Split

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


def coco(root: Path) -> None:
    (root / "annotations").mkdir(parents=True)
    for name in ("train2017", "val2017"):
        (root / name).mkdir()
        (root / "annotations" / f"instances_{name}.json").write_text("{}")


def voc(root: Path) -> None:
    for name in ("trainval", "test"):
        file = root / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")


CUSTOM = {"kind": "custom"} | {
    f"{part}_{what}": path
    for part in ("train", "test")
    for what, path in (("annotations", f"{part}.json"), ("images", part))
}


def test_coco_is_looked_for_and_its_path_is_absolute(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"scenario": "coco/40+40", "detector": "gfl_r50", "data": {"root": "coco"}}
    assert the_problem(**changes) == f"data.root: there is no folder {tmp_path}/coco"
    coco(tmp_path / "coco")
    assert spec_of(**changes).data == DataConfig(kind="coco", root=str(tmp_path / "coco"))
    (tmp_path / "coco" / "val2017").rmdir()
    (tmp_path / "coco" / "annotations" / "instances_train2017.json").unlink()
    assert problems_of(**changes) == (
        f"data.root: there is no file {tmp_path}/coco/annotations/instances_train2017.json",
        f"data.root: there is no folder {tmp_path}/coco/val2017",
    )


def test_voc_is_looked_for(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"scenario": "voc/15+5", "detector": "gfl_r18", "data": {"root": "."}}
    test, train = problems_of(**changes)
    assert test.startswith(f"data.root: {tmp_path} must hold VOC2007/ImageSets/Main/test.txt or ")
    assert train.startswith(f"data.root: {tmp_path} must hold ImageSets/Main/trainval.txt")
    voc(tmp_path)
    assert spec_of(**changes).data.root == str(tmp_path)


def test_custom_files_are_looked_for_from_the_root_on(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"scenario": {"steps": [["nut"], ["bolt"]]}, "data": CUSTOM}
    assert problems_of(**changes) == (
        f"data.train_annotations: there is no file {tmp_path}/train.json",
        f"data.train_images: there is no folder {tmp_path}/train",
        f"data.test_annotations: there is no file {tmp_path}/test.json",
        f"data.test_images: there is no folder {tmp_path}/test",
    )
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        (tmp_path / f"{part}.json").write_text("{}")
    split = spec_of(**changes).data.split("train")
    assert split == Split(tmp_path / "train.json", tmp_path / "train")
    assert spec_of(**changes, storage="runs").data.root == str(tmp_path)


def test_weights_are_a_file_that_exists_or_a_url(tmp_path: Path) -> None:
    assert (
        the_problem(training={"pretrained": "r18.pth"}) == f"training.pretrained: there is no file {tmp_path}/r18.pth"
    )
    (tmp_path / "r18.pth").write_text("")
    assert spec_of(training={"pretrained": "r18.pth"}).pretrained == f"{tmp_path}/r18.pth"
    assert spec_of(training={"pretrained": "r18.pth", "freeze_base": True}).freeze_base
    frozen = "training.freeze_base: freezes random weights unless training.pretrained is given"
    assert the_problem(training={"freeze_base": True}) == frozen
    url = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
    assert spec_of(training={"pretrained": url}).pretrained == url


def test_the_keys_of_data_are_those_of_its_configuration() -> None:
    assert list(Data.model_fields) == [field.name for field in fields(DataConfig)]
