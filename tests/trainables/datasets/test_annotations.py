"""COCO files that are accepted, and every fault of those that are not."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO

from tests.trainables.datasets.files import Coco, pets
from trainables.datasets.annotations import load, read, require_classes, write
from trainables.errors import MAX_LINES, DataError
from trainables.scenarios import custom_scenario

Edit = Callable[[Coco], Any]


def written(folder: Path, coco: Any) -> Path:
    path = folder / "instances.json"
    path.write_text(json.dumps(coco))
    return path


def test_load_accepts_what_real_data_hold(tmp_path: Path, pets_images: Path) -> None:
    coco = load(written(tmp_path, pets()), pets_images)
    assert coco["images"] == pets()["images"]
    assert coco["categories"] == pets()["categories"]
    assert [annotation["iscrowd"] for annotation in coco["annotations"]] == [0, 0, 0, 0, 1, 1]
    assert coco["annotations"][1]["area"] == 90.5


def test_load_fills_in_optional_keys_and_leaves_masks_out(tmp_path: Path, pets_images: Path) -> None:
    bare = pets()
    del bare["info"], bare["licenses"]
    coco = load(written(tmp_path, bare), pets_images)
    assert coco["info"] == {}
    assert coco["licenses"] == []
    filled = coco["annotations"][3]
    assert (filled["area"], filled["iscrowd"]) == (25, 0)
    assert "segmentation" not in filled


def test_a_file_that_no_memory_holds_is_refused(tmp_path: Path, pets_images: Path) -> None:
    path = written(tmp_path, pets())
    os.truncate(path, (8 << 30) + 1)
    with pytest.raises(DataError, match="must have at most 8589934592 bytes, but has 8589934593"):
        load(path, pets_images)


def test_an_ignored_object_is_a_region_to_ignore(tmp_path: Path, pets_images: Path) -> None:
    coco = pets()
    coco["annotations"][0]["ignore"] = 1
    assert load(written(tmp_path, coco), pets_images)["annotations"][0]["iscrowd"] == 1


FAULTS: dict[str, tuple[Edit, str]] = {
    "no images": (lambda c: c.pop("images"), "images must be a list, but it is missing"),
    "images is an object": (lambda c: c.update(images={}), "images must be a list, but got {}"),
    "empty": (lambda c: c.update(images=[], annotations=[]), "images must not be empty"),
    "entry": (lambda c: c["annotations"].append(7), "annotations[6] must be an object, but got 7"),
    "image id twice": (
        lambda c: c["images"][1].update(id=30),
        "images[1].id must be unique, but 30 is also the id of images[0]",
    ),
    "annotation id twice": (
        lambda c: c["annotations"][1].update(id=4),
        "annotations[1].id must be unique, but 4 is also",
    ),
    "category id twice": (lambda c: c["categories"][1].update(id=90), "categories[1].id must be unique"),
    "id is text": (lambda c: c["images"][3].update(id="5"), "images[3].id must be an integer, but got '5'"),
    "id is a bool": (
        lambda c: c["annotations"][0].update(id=True),
        "annotations[0].id must be an integer, but got True",
    ),
    "category name twice": (lambda c: c["categories"][2].update(name="dog"), "2 categories are named 'dog'"),
    "no category name": (
        lambda c: c["categories"][2].pop("name"),
        "categories[2].name must be a name, but it is missing",
    ),
    "no width": (
        lambda c: c["images"][2].pop("width"),
        "images[2].width must be a number of pixels above 0, at most 1048576, but it is missing",
    ),
    "unknown image": (
        lambda c: c["annotations"][2].update(image_id=99),
        "annotations[2].image_id must be the id of an image, but got 99",
    ),
    "unknown category": (
        lambda c: c["annotations"][2].update(category_id=[1]),
        "annotations[2].category_id must be the id of a category, but got [1]",
    ),
    "no box": (
        lambda c: c["annotations"][2].pop("bbox"),
        "annotations[2].bbox must be four finite numbers [x, y, width, height], but it is missing",
    ),
    "three numbers": (
        lambda c: c["annotations"][2].update(bbox=[1, 2, 3]),
        "annotations[2].bbox must be four finite numbers",
    ),
    "nan": (
        lambda c: c["annotations"][2].update(bbox=[1, 2, float("nan"), 4]),
        "annotations[2].bbox must be four finite numbers",
    ),
    "no height": (
        lambda c: c["annotations"][2].update(bbox=[1, 2, 3, 0]),
        "annotations[2].bbox must have a width and a height above 0, but got [1, 2, 3, 0]",
    ),
    "outside": (
        lambda c: c["annotations"][2].update(bbox=[1, 2, 64.1, 3]),
        "annotations[2].bbox must lie inside image 10 (64 x 48 pixels), but got [1, 2, 64.1, 3]",
    ),
    "left": (
        lambda c: c["annotations"][2].update(bbox=[-1.1, 2, 6, 3]),
        "annotations[2].bbox must lie inside image 10",
    ),
    "in the tolerance alone": (
        lambda c: c["annotations"][2].update(bbox=[64, 2, 0.5, 3]),
        "annotations[2].bbox must lie inside image 10",
    ),
    "area": (
        lambda c: c["annotations"][2].update(area=-1),
        "annotations[2].area must be a number of square pixels, but got -1",
    ),
    "crowd": (
        lambda c: c["annotations"][2].update(iscrowd="no"),
        "annotations[2].iscrowd must be 0 or 1, but got 'no'",
    ),
    "unhashable crowd": (
        lambda c: c["annotations"][2].update(iscrowd=[]),
        "annotations[2].iscrowd must be 0 or 1, but got []",
    ),
    "upwards": (
        lambda c: c["images"][0].update(file_name="sub/../../pets/a.png"),
        "images[0].file_name must stay inside",
    ),
    "absolute": (lambda c: c["images"][0].update(file_name="/etc/hostname"), "images[0].file_name must stay inside"),
    "no file": (lambda c: c["images"][0].update(file_name="missing.png"), "there is no 'missing.png'"),
    "a folder": (lambda c: c["images"][0].update(file_name="sub"), "there is no 'sub'"),
    "zero byte": (lambda c: c["images"][0].update(file_name="a\0.png"), "there is no 'a\\x00.png'"),
    "half a character": (lambda c: c["images"][0].update(file_name="\ud800.png"), "there is no '\\ud800.png'"),
    "endless name": (lambda c: c["images"][0].update(file_name="x" * 5000), "there is no 'xxx"),
    "no file name": (
        lambda c: c["images"][0].update(file_name=None),
        "images[0].file_name must be the name of a file, but got None",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_named_with_its_place(name: str, tmp_path: Path, pets_images: Path) -> None:
    edit, message = FAULTS[name]
    coco = pets()
    edit(coco)
    path = written(tmp_path, coco)
    with pytest.raises(DataError) as error:
        load(path, pets_images)
    assert error.value.subject == str(path)
    assert any(message in problem for problem in error.value.problems), str(error.value)


def test_all_faults_are_reported_together(tmp_path: Path, pets_images: Path) -> None:
    coco = pets()
    for edit in (FAULTS[name][0] for name in ("image id twice", "no height", "no file", "no category name")):
        edit(coco)
    with pytest.raises(DataError) as error:
        load(written(tmp_path, coco), pets_images)
    text = str(error.value)
    for part in ("images[1].id", "annotations[2].bbox", "'missing.png'", "categories[2].name"):
        assert part in text


def test_a_long_list_is_cut_with_its_length(tmp_path: Path, pets_images: Path) -> None:
    coco = pets()
    coco["annotations"] += [{"id": 100 + i, "image_id": 5, "category_id": 3, "bbox": [0, 0, 0, 0]} for i in range(50)]
    with pytest.raises(DataError) as error:
        load(written(tmp_path, coco), pets_images)
    assert len(error.value.problems) == MAX_LINES + 1
    assert error.value.problems[-1] == "... and 30 more"


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe", b"[" * 100_000, b"[1, 2]", b"null"])
def test_what_is_no_annotation_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"broken\.json.* must "):
        load(path, tmp_path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must be a JSON file, but: No such file"):
        load(tmp_path / "none.json", tmp_path)


def test_the_edge_tolerance_is_one_pixel(tmp_path: Path, pets_images: Path) -> None:
    coco = pets()
    coco["annotations"][2]["bbox"] = [-1, -1, 66, 50]
    load(written(tmp_path, coco), pets_images)


def test_written_bytes_depend_on_the_content_alone(tmp_path: Path) -> None:
    coco = pets()
    write(tmp_path / "a.json", coco)
    write(tmp_path / "b.json", dict(reversed(copy.deepcopy(coco).items())))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert read(tmp_path / "a.json") == coco


def test_a_written_file_keeps_info_and_opens_in_pycocotools(tmp_path: Path) -> None:
    bare = {key: value for key, value in pets().items() if key not in ("info", "licenses")}
    write(tmp_path / "bare.json", bare)
    assert (read(tmp_path / "bare.json")["info"], read(tmp_path / "bare.json")["licenses"]) == ({}, [])
    detection = {"image_id": 30, "category_id": 17, "bbox": [1, 2, 3, 4], "score": 0.5}
    assert len(COCO(str(tmp_path / "bare.json")).loadRes([detection]).anns) == 1


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write(path, pets())
    before = path.read_bytes()
    with pytest.raises(DataError, match="every number must be finite"):
        write(path, pets() | {"info": {"x": float("nan")}})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_classes_that_the_data_lack_and_steps_without_images_are_named() -> None:
    coco = pets()
    coco["annotations"] = [annotation for annotation in coco["annotations"] if annotation["category_id"] != 3]
    scenario = custom_scenario([["cat", "horse"], ["bird"], ["dog"], ["emu"]])
    with pytest.raises(DataError) as error:
        require_classes(coco, scenario)
    text = "\n".join(error.value.problems)
    assert "class 'horse' is not in the data; available: dog, bird, cat" in text
    assert "class 'emu'" in text
    assert "step 1 (bird): no image has a box of its classes" in text
    assert len(error.value.problems) == 3
    require_classes(pets(), custom_scenario([["cat"], ["bird", "dog"]]))
