"""The three parts of a data set, in a folder that is complete or not there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.trainables.datasets.files import pets
from trainables.datasets.annotations import write
from trainables.datasets.splits import PARTS, Build, Splits, built_once
from trainables.errors import DataError
from trainables.files import file_digest

RECIPE = {"kind": "pets"}


def build(folder: Path) -> tuple[Mapping[str, Path], tuple[str, ...]]:
    for part in PARTS:
        write(folder / "annotations" / f"{part}.json", pets())
    return {part: Path("/images") / part for part in PARTS}, ("cat", "dog")


def after(first: Build, folder: Path) -> Build:
    """A build during which another process builds and completes the same folder."""

    def late(aside: Path) -> tuple[Mapping[str, Path], tuple[str, ...]]:
        built_once(folder, RECIPE, first)
        return build(aside)

    return late


def refused(folder: Path) -> tuple[Mapping[str, Path], tuple[str, ...]]:
    raise AssertionError("must not be built again")


def test_splits_say_what_was_built(tmp_path: Path) -> None:
    splits = built_once(tmp_path / "out", RECIPE, build)
    assert splits.tune.images == Path("/images/tune")
    assert splits.tune.digest == file_digest(tmp_path / "out" / "annotations" / "tune.json")
    assert splits.class_names == ("cat", "dog")
    assert built_once(tmp_path / "out", RECIPE, refused) == splits


def test_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert built_once(Path("out"), RECIPE, build).train.annotations == tmp_path / "out" / "annotations" / "train.json"


def test_two_builders_at_once_get_one_folder(tmp_path: Path) -> None:
    splits = built_once(tmp_path / "out", RECIPE, after(build, tmp_path / "out"))
    assert isinstance(splits, Splits)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_build_that_fails_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    def failing(folder: Path) -> tuple[Mapping[str, Path], tuple[str, ...]]:
        build(folder)
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        built_once(tmp_path / "out", RECIPE, failing)
    assert list(tmp_path.iterdir()) == []
    built_once(tmp_path / "out", RECIPE, build)


def test_another_recipe_is_refused(tmp_path: Path) -> None:
    built_once(tmp_path / "out", RECIPE, build)
    with pytest.raises(DataError, match="kind must be 'fish', but the folder was built with 'pets'"):
        built_once(tmp_path / "out", {"kind": "fish"}, refused)
