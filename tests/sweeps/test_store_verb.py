"""`sweeps store`: what lies in a store, in words, and what pruning takes from it."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from sweeps.store_view import prune_store, show_store, size_text, store_root
from tests.trainables.trials import trial_config
from trainables.errors import SpecError
from trainables.scenarios import custom_scenario
from trainables.store import DAY_S, Store
from trainables.store_contents import entries

CONFIG = trial_config(base_epochs=10, epochs=5, batch_size=16)
STEP = CONFIG.step_identity(1)


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def folder(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))
    return Store(f"memory://{uuid4().hex}/store")


@pytest.fixture(params=["folder", "remote"])
def store(request: pytest.FixtureRequest) -> Store:
    found: Store = request.getfixturevalue(request.param)
    return found


def root(store: Store) -> Path | str:
    return store.remote.url if store.remote else store.root


def kilobyte(folder: Path) -> None:
    (folder / "weights.pt").write_bytes(bytes(1000))


def build(store: Store, kind: str = "steps", **identity: object) -> Path:
    return store.get(kind, identity, kilobyte)


def old(path: Path, days: float) -> Path:
    """`path` as it would be after so many days in which nobody touched it."""
    then = time.time() - days * DAY_S
    for found in (*path.rglob("*"), path):
        os.utime(found, (then, then))
    return path


def stamp(days: float) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).strftime("%Y%m%dT%H%M%SZ-00000000")


def shown(store: Store, capsys: pytest.CaptureFixture[str], kind: str | None = None) -> list[str]:
    show_store(root(store), kind)
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def pruned(store: Store, days: float, capsys: pytest.CaptureFixture[str], kind: str | None = None) -> list[str]:
    prune_store(root(store), days, kind)
    lines = capsys.readouterr().out.splitlines()
    return [line for line in lines if line.startswith(("removed ", "1 ")) and not line.startswith("removed from")]


def test_entries_are_told_in_words(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    build(store, **CONFIG.step_identity(0))
    build(store, **STEP)
    build(store, **CONFIG.joint(1).step_identity(0))
    vehicles = custom_scenario([["car", "bus"], ["truck", "tram"]])
    build(store, **replace(CONFIG, scenario=vehicles).step_identity(1))
    build(store, "scores", step=STEP, annotations="fedcba9876543210", images="full")
    build(store, "images", annotations="fedcba9876543210", scale=None)
    build(store, "images", annotations="0123456789abcdef", scale=[1333, 800])
    build(store, "targets", learnt=CONFIG.scenario.steps[1], detector="gfl_r18_tiny")
    build(store, "responses", learnt=CONFIG.scenario.steps[1], teacher=CONFIG.step_identity(0))
    build(store, "wonders", of="2000 [train] scenes")
    build(store, "wonders", number=7, of="the world", more=[1, 2])
    build(store, "steps", of="another version")
    title, header, _, *rows = shown(store, capsys)
    assert title == f"{root(store)}: 12 entries, {size_text(sum(entry.size for entry in entries(store)))}"
    assert header == "kind what entries size age last used"
    assert [row.partition(" 1 1.")[0].partition(" 1 2.")[0] for row in rows] == [
        "images annotations 01234567, 1333x800 px",
        "images annotations fedcba98, as they are",
        "responses to digits 5 of step 1 of digits 5, gfl_r18_tiny, 10 epochs, seed 0",
        "scores step 2 of digits 5+5, gfl_r18_tiny, erd, 5 epochs, seed 0; on annotations fedcba98",
        "steps of another version",
        "steps step 1 of digits 10, gfl_r18_tiny, 10 epochs, seed 0",
        "steps step 1 of digits 5, gfl_r18_tiny, 10 epochs, seed 0",
        "steps step 2 of 2+2 classes (car, bus, truck, ...), gfl_r18_tiny, erd, 5 epochs, seed 0",
        "steps step 2 of digits 5+5, gfl_r18_tiny, erd, 5 epochs, seed 0",
        "targets digits 5, gfl_r18_tiny",
        "wonders number 7, of the world",
        "wonders of 2000 [train] scenes",
    ]


def test_entries_that_words_do_not_tell_apart_share_a_row(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for lambda_cls in (0.1, 1.0, 10.0):
        build(store, **replace(CONFIG, params=CONFIG.params | {"lambda_cls": lambda_cls}).step_identity(1))
    *_, row = shown(store, capsys)
    assert " seed 0 3 " in row


def test_one_kind_is_shown_alone(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    build(store, **STEP)
    build(store, "scores", step=STEP, annotations="fedcba9876543210", images="full")
    title, *_, row = shown(store, capsys, "scores")
    assert ": 1 entry, " in title
    assert row.startswith("scores ")


def test_an_unknown_kind_is_refused(folder: Store) -> None:
    for verb in (lambda: show_store(folder.root, "step"), lambda: prune_store(folder.root, 0, "step")):
        with pytest.raises(SpecError, match="'step' is unknown; did you mean 'steps'"):
            verb()


def test_age_and_last_use_are_told(folder: Store, capsys: pytest.CaptureFixture[str]) -> None:
    entry = build(folder, **STEP)
    manifest = json.loads((entry / "manifest.json").read_text())
    (entry / "manifest.json").write_text(json.dumps(manifest | {"build": stamp(days=9)}))
    old(entry, days=3)
    assert shown(folder, capsys)[-1].endswith("9 d 3 d")


def test_a_damaged_entry_is_told_as_such(folder: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, name in enumerate(["weights.pt", "manifest.json", "identity.json"]):
        (build(folder, **replace(CONFIG, seed=seed).step_identity(1)) / name).unlink()
    rows = shown(folder, capsys)[3:]
    assert len(rows) == 3
    assert all(row.startswith("steps damaged: ") for row in rows)


def test_what_was_not_used_for_long_is_removed(folder: Store, capsys: pytest.CaptureFixture[str]) -> None:
    gone, stays = old(build(folder, **STEP), days=8), old(build(folder, seed=1), days=6)
    score = old(build(folder, "scores", seed=1), days=8)
    (line,) = pruned(folder, 7, capsys, "steps")
    assert line.startswith("removed 1 entry, 2.")
    assert (gone.exists(), stays.exists(), score.exists()) == (False, True, True)
    pruned(folder, 7, capsys)
    assert (stays.exists(), score.exists()) == (True, False)
    assert build(folder, **STEP).exists()


def test_what_was_not_used_for_long_is_removed_from_a_url_and_the_cache(
    remote: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert remote.remote
    used, cached = build(remote, seed=1), old(build(remote, **STEP), days=1)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    name = f"steps/{used.name}/used"
    remote.remote.filesystem.pipe_file(remote.remote.at(name), tomorrow.isoformat().encode())
    time.sleep(1.0)  # the time of a build is told in seconds
    (line,) = pruned(remote, 0, capsys)
    assert line.startswith("removed 1 entry, ")
    assert [entry.name for entry in entries(remote)] == [used.name]
    assert not cached.exists()


def test_nothing_is_removed_where_there_is_nothing_old(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    build(store, **STEP)
    assert pruned(store, 1, capsys) == ["removed 0 entries, 0 B"]
    assert len(entries(store)) == 1


@pytest.fixture
def under_repair(folder: Store) -> Iterator[Path]:
    """A damaged entry, long unused, while somebody builds it again."""
    entry, started, finish = build(folder, **STEP), threading.Event(), threading.Event()
    (entry / "weights.pt").unlink()
    partial = folder.partial("steps", STEP)
    partial.mkdir(parents=True)

    def slowly(aside: Path) -> None:
        for path in (entry, partial, aside, folder.root / "locks" / f"steps-{entry.name}"):
            old(path, days=9)
        started.set()
        finish.wait(60)
        kilobyte(aside)

    thread = threading.Thread(target=folder.get, args=("steps", STEP, slowly))
    thread.start()
    started.wait(60)
    yield entry
    finish.set()
    thread.join(60)
    assert folder.find("steps", STEP) == entry


def test_what_is_under_a_lock_stays(folder: Store, under_repair: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.root.rglob("*"))
    assert pruned(folder, 7, capsys) == ["removed 0 entries, 0 B", "1 entry stayed: locked by a builder"]
    assert sorted(folder.root.rglob("*")) == before


def test_leftovers_of_killed_builders_are_removed(folder: Store, capsys: pytest.CaptureFixture[str]) -> None:
    entry = build(folder, **STEP)
    young = [entry.with_name(f".{entry.name}.{uuid4().hex}"), folder.partial("steps", {"seed": 1})]
    aged = [entry.with_name(f".{entry.name}.{uuid4().hex}"), folder.partial("steps", {"seed": 2})]
    for path in (*young, *aged):
        path.mkdir(parents=True)
        (path / "state.pt").write_bytes(bytes(500))
    for path in (*aged, folder.root / "locks" / f"steps-{entry.name}"):
        old(path, days=2)
    (line, leftovers) = pruned(folder, 7, capsys)
    assert line == "removed 0 entries, 0 B"
    assert leftovers == "removed 2 leftovers of killed builders, 1.0 kB: 1 in steps, 1 in partial"
    assert [path.exists() for path in (*young, *aged)] == [True, True, False, False]
    assert list((folder.root / "locks").iterdir()) == []
    assert folder.find("steps", STEP) == entry


def test_leftovers_of_dead_hosts_are_removed(remote: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert remote.remote
    entry, at, filesystem = build(remote, **STEP), remote.remote.at, remote.remote.filesystem
    dead, alive = "steps/00000000000000dd", "steps/00000000000000aa"
    for name, days in ((dead, 2.0), (alive, 0.0)):
        time_of = (datetime.now(UTC) - timedelta(days=days)).isoformat()
        filesystem.pipe_file(at(name, "lease.json"), json.dumps({"owner": "host", "time": time_of}).encode())
        filesystem.pipe_file(at(name, stamp(days=2), "weights.pt"), bytes(500))
    filesystem.pipe_file(at("steps", entry.name, stamp(days=2), "weights.pt"), bytes(500))
    filesystem.pipe_file(at("steps", entry.name, stamp(days=0), "weights.pt"), bytes(500))
    _, leftovers = pruned(remote, 7, capsys)
    assert leftovers.startswith("removed 3 leftovers of killed builders, 1.1 kB")
    assert filesystem.find(at(dead)) == []
    assert len(filesystem.find(at(alive))) == 2
    assert len(filesystem.find(at("steps", entry.name, stamp(days=0)))) == 1
    assert entries(remote)[0].whole


def test_what_a_host_builds_stays_at_the_url(remote: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert remote.remote
    entry = build(remote, **STEP)
    lease = {"owner": "another host", "time": datetime.now(UTC).isoformat()}
    remote.remote.filesystem.pipe_file(remote.remote.at("steps", entry.name, "lease.json"), json.dumps(lease).encode())
    time.sleep(1.0)  # the time of a build is told in seconds
    assert pruned(remote, 0, capsys) == ["removed 0 entries, 0 B", "1 entry stayed: locked by a builder"]
    assert len(entries(remote)) == 1


def test_the_root_is_the_store_itself_or_in_the_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PALIMPSEST_STORAGE", raising=False)
    assert store_root(None, None) == Path("runs/store").absolute()
    assert store_root(Path("mine"), None) == Path("mine/store").absolute()
    assert store_root(Path("mine"), "s3://bucket/store") == "s3://bucket/store"
    monkeypatch.setenv("PALIMPSEST_STORAGE", "shared")
    assert store_root(None, None) == Path("shared/store").absolute()
    monkeypatch.setenv("PALIMPSEST_STORAGE", "~/shared")
    assert store_root(None, None) == Path("~/shared/store").expanduser()


@pytest.mark.parametrize("do", [show_store, lambda root: prune_store(root, 7)], ids=["show", "prune"])
def test_a_store_that_is_not_there_is_not_made(tmp_path: Path, do: Callable[[Path], None]) -> None:
    with pytest.raises(SpecError, match="there is no such store"):
        do(tmp_path / "store")
    assert list(tmp_path.iterdir()) == []
