"""A store in a folder: entries that are whole or not there, built once by processes that wait for each other."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import time
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import numpy as np
import pytest

from trainables import store_manifest
from trainables.files import digest, sha256
from trainables.store import Build, Store

IDENTITY = {"detector": "gfl_r18_tiny", "seed": 0}
PROCESSES = multiprocessing.get_context("spawn")
PATIENCE = 60  # s, far above what a slow machine needs


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def files(folder: Path) -> set[str]:
    """All files below a folder but the locks, which stay."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith("locks/")}


def write_weights(folder: Path) -> None:
    (folder / "weights.txt").write_text("weights")


def refuse(folder: Path) -> None:
    raise AssertionError("must not be built")


def test_an_entry_is_built_where_its_identity_says_and_only_once(store: Store) -> None:
    built = store.get("steps", IDENTITY, write_weights)
    assert built == store.path("steps", IDENTITY) == store.root / "steps" / digest(IDENTITY)
    assert {path.name for path in built.iterdir()} == {"identity.json", "manifest.json", "weights.txt"}
    assert json.loads((built / "identity.json").read_text()) == IDENTITY
    assert Store(store.root).get("steps", dict(reversed(IDENTITY.items())), refuse) == built


def test_the_manifest_tells_every_file_with_size_and_digest(store: Store) -> None:
    def build(folder: Path) -> None:
        (folder / "tables").mkdir()
        (folder / "tables" / "responses.bin").write_bytes(bytes(1000))

    entry = store.get("responses", IDENTITY, build)
    told = {file["name"]: file for file in json.loads((entry / "manifest.json").read_text())["files"]}
    assert told.keys() == {"identity.json", "tables/responses.bin"}
    assert told["tables/responses.bin"]["size"] == 1000
    assert told["tables/responses.bin"]["sha256"] == hashlib.sha256(bytes(1000)).hexdigest()


def test_kinds_and_identities_lie_apart(store: Store) -> None:
    paths = {
        store.get(kind, identity, write_weights) for kind in ("steps", "scores") for identity in (IDENTITY, {"seed": 1})
    }
    assert len(paths) == 4


@pytest.mark.parametrize("kind", ["../steps", "steps/0", "", ".", "locks", "partial"])
def test_a_kind_cannot_leave_the_store(store: Store, kind: str) -> None:
    with pytest.raises(ValueError, match="plain name"):
        store.get(kind, IDENTITY, write_weights)
    assert not store.root.exists()


def test_find_builds_nothing(store: Store) -> None:
    assert store.find("steps", IDENTITY) is None
    assert not store.root.exists()
    built = store.get("steps", IDENTITY, write_weights)
    assert store.find("steps", IDENTITY) == built


def test_an_entry_appears_only_when_it_is_whole(store: Store) -> None:
    def build(folder: Path) -> None:
        write_weights(folder)
        assert not store.path("steps", IDENTITY).exists()
        assert folder.parent == store.path("steps", IDENTITY).parent  # one file system: the rename is atomic

    assert store.get("steps", IDENTITY, build).exists()


def test_a_builder_that_raises_leaves_nothing_and_the_next_one_builds(store: Store) -> None:
    def fail(folder: Path) -> None:
        write_weights(folder)
        raise RuntimeError("no space left")

    with pytest.raises(RuntimeError, match="no space left"):
        store.get("steps", IDENTITY, fail)
    assert files(store.root) == set()
    assert list((store.root / "steps").iterdir()) == []
    assert store.get("steps", IDENTITY, write_weights).exists()


def test_the_state_of_an_unfinished_build_waits_for_the_next_and_goes_with_success(store: Store) -> None:
    partial, other = store.partial("steps", IDENTITY), store.partial("steps", {"seed": 1})
    other.mkdir(parents=True)
    (other / "state.pt").write_text("of another")

    def interrupted(folder: Path) -> None:
        partial.mkdir(parents=True)
        (partial / "state.pt").write_text("epoch 3")
        raise KeyboardInterrupt

    def resume(folder: Path) -> None:
        assert (partial / "state.pt").read_text() == "epoch 3"
        write_weights(folder)

    with pytest.raises(KeyboardInterrupt):
        store.get("steps", IDENTITY, interrupted)
    store.get("steps", IDENTITY, resume)
    assert not partial.exists()
    assert (other / "state.pt").exists()


def damage(entry: Path, how: str) -> None:
    weights, manifest = entry / "weights.txt", entry / "manifest.json"
    if how == "truncated":
        weights.write_text("weigh")
    elif how == "changed":
        weights.write_text("Weights")
    elif how == "missing":
        weights.unlink()
    elif how == "older, without a manifest":
        manifest.unlink()
    elif how == "of another identity":
        shutil.move(entry, entry.with_name("aside"))
        other = Store(entry.parents[1]).get("steps", {"seed": 1}, write_weights)
        shutil.move(other, entry)
    elif how == "manifest torn":
        manifest.write_text(manifest.read_text()[:50])
    elif how == "manifest of something else":
        manifest.write_text('["weights.txt"]')


DAMAGES = (
    "truncated", "changed", "missing", "older, without a manifest", "of another identity", "manifest torn",
    "manifest of something else",
)  # fmt: skip


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_entry_is_found_and_built_again(store: Store, how: str) -> None:
    entry = store.get("steps", IDENTITY, write_weights)
    damage(entry, how)
    assert store.find("steps", IDENTITY) is None
    assert store.get("steps", IDENTITY, write_weights) == entry
    assert store.get("steps", IDENTITY, refuse) == entry
    assert (entry / "weights.txt").read_text() == "weights"
    assert [path for path in (store.root / "steps").iterdir() if path.name.startswith(".")] == []


def find_nothing(root: Path) -> None:
    assert Store(root).find("steps", IDENTITY) is None


def test_a_process_trusts_no_sizes_and_times_that_it_has_not_hashed_itself(store: Store) -> None:
    weights = store.get("steps", IDENTITY, write_weights) / "weights.txt"
    before = weights.stat()
    weights.write_text("Weights")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    other = PROCESSES.Process(target=find_nothing, args=(store.root,), daemon=True)
    other.start()
    other.join(PATIENCE)
    assert other.exitcode == 0


def test_a_large_entry_is_hashed_once_a_process(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def counted(path: Path) -> str:
        hashed.append(path.name)
        return sha256(path)

    store.get("steps", IDENTITY, write_weights)
    monkeypatch.setattr(store_manifest, "sha256", counted)
    for _ in range(3):
        Store(store.root).get("steps", IDENTITY, refuse)
    assert sorted(hashed) == ["identity.json", "weights.txt"]


def test_who_has_the_old_entry_mapped_keeps_it_when_it_is_replaced(store: Store) -> None:
    def build(value: int) -> Build:
        return lambda folder: np.full(4096, value, np.uint8).tofile(folder / "table.bin")

    entry = store.get("responses", IDENTITY, build(1))
    mapped = np.memmap(entry / "table.bin", np.uint8, "r")
    (entry / "identity.json").unlink()
    store.get("responses", IDENTITY, build(2))
    assert set(mapped) == {1}
    assert set(np.fromfile(entry / "table.bin", np.uint8)) == {2}


def test_a_damaged_entry_stays_until_there_is_a_whole_one(store: Store) -> None:
    entry = store.get("steps", IDENTITY, write_weights)
    damage(entry, "changed")

    def fail(folder: Path) -> None:
        assert (entry / "weights.txt").read_text() == "Weights"
        raise RuntimeError("no space left")

    with pytest.raises(RuntimeError, match="no space left"):
        store.get("steps", IDENTITY, fail)
    assert [path.name for path in (store.root / "steps").iterdir()] == [entry.name]
    assert store.find("steps", IDENTITY) is None


def test_the_folder_tells_when_the_entry_was_last_used(store: Store) -> None:
    entry = store.get("steps", IDENTITY, write_weights)
    for use in (lambda: store.get("steps", IDENTITY, refuse), lambda: store.find("steps", IDENTITY)):
        os.utime(entry, (0, 0))
        (before := store.root.with_name("before")).touch()
        use()
        assert entry.stat().st_mtime_ns >= before.stat().st_mtime_ns


def build_slowly(root: Path, barrier: Barrier) -> None:
    def build(folder: Path) -> None:
        with (root.parent / "builds.log").open("a") as log:
            log.write(f"{os.getpid()}\n")
        time.sleep(0.3)
        write_weights(folder)

    barrier.wait(PATIENCE)
    entry = Store(root).get("steps", IDENTITY, build)
    assert (entry / "weights.txt").read_text() == "weights"


def test_two_processes_at_once_build_once(store: Store) -> None:
    barrier = PROCESSES.Barrier(2)
    both = [PROCESSES.Process(target=build_slowly, args=(store.root, barrier), daemon=True) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(PATIENCE)
    assert [process.exitcode for process in both] == [0, 0]
    assert len((store.root.parent / "builds.log").read_text().split()) == 1
    assert files(store.root) == {
        f"steps/{digest(IDENTITY)}/{name}" for name in ("identity.json", "manifest.json", "weights.txt")
    }


def die_while_building(root: Path, building: Event) -> None:
    def build(folder: Path) -> None:
        write_weights(folder)
        partial = Store(root).partial("steps", IDENTITY)
        partial.mkdir(parents=True)
        (partial / "state.pt").write_text("epoch 3")
        building.set()
        os._exit(9)

    Store(root).get("steps", IDENTITY, build)


def test_a_dead_owner_blocks_nobody_and_leaves_its_state(store: Store) -> None:
    building = PROCESSES.Event()
    owner = PROCESSES.Process(target=die_while_building, args=(store.root, building), daemon=True)
    owner.start()
    owner.join(PATIENCE)
    assert building.is_set()
    assert owner.exitcode == 9
    assert not store.path("steps", IDENTITY).exists()
    assert (store.partial("steps", IDENTITY) / "state.pt").read_text() == "epoch 3"
    with store.lock(store.path("steps", IDENTITY), timeout_s=0):  # it fell with its owner
        pass
    assert (store.get("steps", IDENTITY, write_weights) / "weights.txt").exists()
    assert not store.partial("steps", IDENTITY).exists()
