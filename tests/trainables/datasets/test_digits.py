"""Scenes of digits: a function of their seed, from sources of their split alone, boxes tight around the ink."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.trainables.datasets.files import left_aside
from trainables.datasets import digits
from trainables.datasets.annotations import load, read, require_classes
from trainables.datasets.splits import PARTS, Splits
from trainables.errors import DataError
from trainables.scenarios import DIGITS, named_scenario

SIZES = (60, 10, 20)


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    return digits.write(tmp_path_factory.mktemp("digits") / "set", SIZES, seed=3)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_files_lie_where_the_docstring_says_and_pass_the_check(splits: Splits) -> None:
    assert splits.class_names == DIGITS
    for part, size in zip(PARTS, SIZES, strict=True):
        split = getattr(splits, part)
        coco = load(split.annotations, split.images)
        assert [image["file_name"] for image in coco["images"]] == [f"{n:06d}.png" for n in range(1, size + 1)]
        assert (split.images / "000001.png").is_file()
        assert [category["name"] for category in coco["categories"]] == list(DIGITS)
    require_classes(read(splits.train.annotations), named_scenario("digits/5+5"))


@pytest.mark.smoke
def test_the_same_seed_gives_the_same_bytes_in_another_process(splits: Splits, tmp_path: Path) -> None:
    code = f"from pathlib import Path; from trainables.datasets.digits import write; write(Path('other'), {SIZES}, 3)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env={"PYTHONPATH": str(Path.cwd())})
    first, second = contents(splits.train.images.parent), contents(tmp_path / "other")
    assert len(first) == sum(SIZES) + 4
    assert first == second


def test_another_seed_gives_other_scenes_and_fewer_scenes_are_the_first_ones(splits: Splits, tmp_path: Path) -> None:
    other = digits.write(tmp_path / "other", (2, 1, 1), seed=4)
    fewer = digits.write(tmp_path / "fewer", (2, 1, 1), seed=3)
    first = (splits.train.images / "000002.png").read_bytes()
    assert (other.train.images / "000002.png").read_bytes() != first
    assert (fewer.train.images / "000002.png").read_bytes() == first


def test_sources_are_disjoint_stratified_and_used_as_told() -> None:
    pools = digits.source_digits(seed=0)
    target = load_digits().target
    for label in range(10):
        total = int((target == label).sum())
        for part, share in zip(PARTS, (0.60, 0.15, 0.25), strict=True):
            assert set(target[pools[part][label]]) == {label}
            assert abs(len(pools[part][label]) - share * total) <= 1
    rows = {part: set(np.concatenate(pools[part]).tolist()) for part in PARTS}
    assert sum(len(part) for part in rows.values()) == len(set.union(*rows.values())) == 1797


def test_scenes_use_the_sources_of_their_split_with_the_right_label(splits: Splits) -> None:
    used, target = {}, load_digits().target
    for part in PARTS:
        boxes = read(getattr(splits, part).annotations)["annotations"]
        used[part] = {box["source"] for box in boxes}
        assert used[part] <= set(np.concatenate(digits.source_digits(seed=3)[part]).tolist())
        assert all(target[box["source"]] == box["category_id"] - 1 for box in boxes)
    assert all(not used[one] & used[other] for one, other in combinations(PARTS, 2))


def scenes(number: int) -> list[digits.Scene]:
    rng = np.random.Generator(np.random.PCG64(5))
    ink = (load_digits().images / 16).astype(np.float32)
    pool = digits.source_digits(seed=0)["train"]
    return [digits.draw_scene(rng, pool, ink) for _ in range(number)]


def test_boxes_are_tight_around_the_ink_and_inside_the_image() -> None:
    for scene in scenes(300):
        for index, (x, y, width, height) in enumerate(scene.boxes):
            rows, columns = np.nonzero(scene.owner == index)
            assert (columns.min(), rows.min()) == (x, y)
            assert (columns.max() + 1, rows.max() + 1) == (x + width, y + height)
            assert 0 <= x < x + width <= 128
            assert 0 <= y < y + height <= 128


def test_the_ink_is_what_one_sees() -> None:
    """The luminance of a digit's pixels differs from that of the background around them."""
    contrasts = []
    for scene in scenes(50):
        luminance = scene.image @ np.array([0.299, 0.587, 0.114])
        for index, (x, y, width, height) in enumerate(scene.boxes):
            window = np.s_[y : y + height, x : x + width]
            ink, paper = scene.owner[window] == index, scene.owner[window] == -1
            contrasts.append(abs(luminance[window][ink].mean() - luminance[window][paper].mean()))
    assert np.quantile(contrasts, 0.05) > 20
    assert np.median(contrasts) > 50


def test_statistics_are_those_of_the_benchmark() -> None:
    drawn = scenes(400)
    target = load_digits().target
    counts = [len(scene.boxes) for scene in drawn]
    assert (min(counts), max(counts)) == (1, 5)
    assert np.mean(counts) == pytest.approx(3.0, abs=0.2)  # 6010 boxes in 2000 images
    old = [any(target[row] < 5 for row in scene.sources) for scene in drawn]
    new = [any(target[row] >= 5 for row in scene.sources) for scene in drawn]
    assert np.mean(old) == pytest.approx(0.80, abs=0.05)  # 1600 of 2000
    assert np.mean([has for has, holds in zip(old, new, strict=True) if holds]) == pytest.approx(0.75, abs=0.06)
    heights = [box[3] for scene in drawn for box in scene.boxes]
    assert 12 <= min(heights) <= 18
    assert 50 <= max(heights) <= 56


def test_images_are_colour_pictures_of_the_stated_size(splits: Splits) -> None:
    image = cv2.imread(str(splits.test.images / "000007.png"), cv2.IMREAD_UNCHANGED)
    assert image is not None
    assert image.shape == (128, 128, 3)


def test_a_complete_folder_is_reused(splits: Splits) -> None:
    root = splits.train.images.parent
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert digits.write(root, SIZES, seed=3) == splits
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_a_folder_of_other_scenes_is_refused(splits: Splits) -> None:
    with pytest.raises(DataError, match="seed must be 5, but the folder was built with 3"):
        digits.write(splits.train.images.parent, SIZES, seed=5)


def test_a_changed_or_damaged_folder_is_refused(tmp_path: Path) -> None:
    splits = digits.write(tmp_path / "set", (1, 1, 1))
    splits.tune.annotations.write_text("{}")
    with pytest.raises(DataError, match=r"annotations/tune\.json was changed"):
        digits.write(tmp_path / "set", (1, 1, 1))
    (tmp_path / "set" / "complete.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        digits.write(tmp_path / "set", (1, 1, 1))


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="must be a new or empty folder"):
        digits.write(tmp_path, (1, 1, 1))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_interrupted_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = digits.draw_scene, []

    def interrupted(*args: object) -> digits.Scene:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(digits, "draw_scene", interrupted)
    with pytest.raises(KeyboardInterrupt):
        digits.write(tmp_path / "set", (3, 3, 3))
    assert list(tmp_path.iterdir()) == []
    assert left_aside(tmp_path) == []


def test_sizes_below_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 errors") as error:
        digits.write(tmp_path / "set", (1, 0, -1))
    assert len(error.value.problems) == 2


def test_the_marker_says_what_the_folder_is(splits: Splits) -> None:
    marker = json.loads((splits.train.images.parent / "complete.json").read_text())
    assert marker["recipe"] == {"kind": "digits", "version": digits.VERSION, "sizes": list(SIZES), "seed": 3}
    assert marker["digests"] == {part: getattr(splits, part).digest for part in PARTS}
