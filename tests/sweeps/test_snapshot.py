"""What a search goes on from when Tune's newest snapshot is torn."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sweeps.snapshot import KEPT, Snapshots, put_back
from trainables.errors import CheckpointError

FIRST, LATER = "2026-01-01_10-00-00", "2026-01-02_10-00-00"
SEARCH = ("experiment_state-{}.json", "searcher-state-{}.pkl", "search_gen_state-{}.json")
POPULATION = ("experiment_state-{}.json", "basic-variant-state-{}.json", "callback-states-{}.pkl")


class Search:
    """A sweep's folder, and what Tune does in it."""

    def __init__(self, folder: Path, parts: tuple[str, ...] = SEARCH) -> None:
        self.folder, self.parts = folder, parts
        self.staging, self.experiment = folder / "staging", folder / "tune"
        for made in (self.staging, self.experiment):
            made.mkdir()
        (self.experiment / "tuner.pkl").touch()
        self.snapshots = Snapshots(folder)

    def write(self, content: str, stamp: str = FIRST, files: int = 3) -> None:
        """A snapshot, or its first files."""
        for part in self.parts[:files]:
            (self.staging / part.format(stamp)).write_text(content)

    def copy(self, files: int = 3) -> None:
        """Into the sweep's folder, or its last files alone."""
        for file in sorted(self.staging.iterdir())[-files:]:
            shutil.copy2(file, self.experiment)

    def step(self) -> None:
        """One of Tune's loop."""
        trial: Any = SimpleNamespace(storage=SimpleNamespace(experiment_driver_staging_path=str(self.staging)))
        self.snapshots.on_step_end(0, [trial])

    @property
    def content(self) -> set[str]:
        """What Tune would go on from."""
        return {file.read_text() for file in self.experiment.glob("*20*")}


@pytest.fixture(params=[SEARCH, POPULATION], ids=["search", "population"])
def search(request: pytest.FixtureRequest, tmp_path: Path) -> Search:
    return Search(tmp_path, request.param)


def test_without_one_it_is_a_fresh_start(tmp_path: Path) -> None:
    assert not put_back(tmp_path)
    (tmp_path / "tune").mkdir()
    (tmp_path / "tune" / "tuner.pkl").touch()
    assert not put_back(tmp_path)  # killed before the first state was written


def test_the_newest_whole_one_is_gone_on_from(search: Search) -> None:
    for content in ("one", "two"):
        search.write(content)
        search.step()
    search.copy()
    assert put_back(search.folder)
    assert search.content == {"two"}


@pytest.mark.parametrize("files", [1, 2])
@pytest.mark.parametrize("stamp", [FIRST, LATER])
def test_a_driver_that_died_while_it_wrote_gives_way_to_the_one_before(search: Search, stamp: str, files: int) -> None:
    search.write("one")
    search.step()
    search.copy()
    search.write("two", stamp, files)
    search.step()  # Tune's last call, even when it could not write
    search.copy()
    assert put_back(search.folder)
    assert search.content == {"one"}


@pytest.mark.parametrize("files", [1, 2])
def test_what_a_driver_had_copied_in_part_is_made_whole(search: Search, files: int) -> None:
    search.write("one")
    search.copy()
    search.write("two")
    search.step()
    search.copy(files)
    assert put_back(search.folder)
    assert search.content == {"two"}


@pytest.mark.parametrize("torn", [b"", b'{"trial_data": [', b"\x00" * 64])
def test_what_became_of_tunes_own_files_does_not_matter(search: Search, torn: bytes) -> None:
    search.write("one")
    search.step()
    search.copy()
    for file in search.experiment.glob("*20*"):
        file.write_bytes(torn)
    assert put_back(search.folder)
    assert search.content == {"one"}


def test_a_snapshot_that_could_not_be_kept_is_kept_later(search: Search) -> None:
    (search.folder / KEPT).mkdir()  # nothing can be written there
    search.write("one")
    search.step()
    (search.folder / KEPT).rmdir()
    search.step()
    assert put_back(search.folder)
    assert search.content == {"one"}


def test_a_driver_killed_within_the_first_one_starts_afresh(search: Search) -> None:
    search.write("one", files=2)
    search.step()
    search.copy()
    assert not put_back(search.folder)


def test_a_snapshot_that_is_lost_is_never_taken_for_a_fresh_start(search: Search) -> None:
    (search.folder / "trials" / "a").mkdir(parents=True)
    (search.folder / "trials" / "a" / "events.jsonl").touch()
    with pytest.raises(CheckpointError, match=r"snapshot\.tar: must be there, .*; delete the sweep's folder `tune`"):
        put_back(search.folder)


@pytest.mark.parametrize("torn", [b"", b"\x00" * 64])
def test_a_broken_snapshot_is_an_error_that_says_what_to_do(search: Search, torn: bytes) -> None:
    search.write("one")
    search.step()
    (search.folder / KEPT).write_bytes(torn)
    with pytest.raises(CheckpointError, match=r"snapshot\.tar: is broken; delete the sweep's folder `tune`"):
        put_back(search.folder)


def test_tunes_own_beginning_must_be_there(search: Search) -> None:
    search.write("one")
    search.step()
    (search.experiment / "tuner.pkl").unlink()
    with pytest.raises(CheckpointError, match=r"must have Tune's tuner\.pkl"):
        put_back(search.folder)
