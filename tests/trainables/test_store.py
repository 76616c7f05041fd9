from __future__ import annotations

import json
import multiprocessing
import os
import time
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import pytest

from trainables.files import digest
from trainables.store import Store

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
    assert {path.name for path in built.iterdir()} == {"identity.json", "weights.txt"}
    assert json.loads((built / "identity.json").read_text()) == IDENTITY
    assert Store(store.root).get("steps", dict(reversed(IDENTITY.items())), refuse) == built


def test_kinds_and_identities_lie_apart(store: Store) -> None:
    paths = {
        store.get(kind, identity, write_weights) for kind in ("steps", "scores") for identity in (IDENTITY, {"seed": 1})
    }
    assert len(paths) == 4


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
    both = [PROCESSES.Process(target=build_slowly, args=(store.root, barrier)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(PATIENCE)
    assert [process.exitcode for process in both] == [0, 0]
    assert len((store.root.parent / "builds.log").read_text().split()) == 1
    assert files(store.root) == {
        f"steps/{digest(IDENTITY)}/{name}" for name in ("identity.json", "weights.txt")
    }  # fmt: skip


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
    owner = PROCESSES.Process(target=die_while_building, args=(store.root, building))
    owner.start()
    owner.join(PATIENCE)
    assert building.is_set()
    assert owner.exitcode == 9
    assert not store.path("steps", IDENTITY).exists()
    assert (store.partial("steps", IDENTITY) / "state.pt").read_text() == "epoch 3"
    begin = time.monotonic()
    assert (store.get("steps", IDENTITY, write_weights) / "weights.txt").exists()
    assert time.monotonic() - begin < 5
    assert not store.partial("steps", IDENTITY).exists()
