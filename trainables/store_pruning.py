"""What nobody used for long leaves a store, and so does what killed builders left behind."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from filelock import Timeout

from trainables.store import DAY_S, LOCKS, PARTIAL, Store, set_aside
from trainables.store_contents import (
    Entry,
    folder_entries,
    parsed_object,
    remote_entries,
    remote_manifests,
    remote_objects,
    tree_size,
    when,
)
from trainables.store_lease import Lease
from trainables.store_manifest import MANIFEST_FILE, build_time
from trainables.store_remote import LEASE_FILE, Remote

_ASIDE = re.compile(r"\.([0-9a-f]{16})\.[0-9a-f]{32}")


@dataclass
class Pruned:
    """What was removed, and how many entries stayed because of their lock.

    Attributes:
        leftovers: bytes by path in the store.
    """

    entries: list[Entry] = field(default_factory=list)
    leftovers: dict[str, int] = field(default_factory=dict)
    locked: int = 0


def prune(store: Store, days: float, kind: str | None = None) -> Pruned:
    """What was removed: entries not used for `days`, and leftovers of builders that have been dead for a day.

    For a URL it is removed there, which is what is told, and from the cache of this host. What is under a lock or a
    lease stays. Files that are open or mapped stay readable, but a process that has found its entry and not opened it
    yet would miss it: `days` should be more than a sweep lasts.

    Args:
        kind: of entries and leftovers; all by default.
    """
    before = time.time() - days * DAY_S
    pruned = _prune_folder(store, before, kind)
    return _prune_remote(store.remote, before, kind) if store.remote else pruned


def _prune_folder(store: Store, before: float, kind: str | None) -> Pruned:
    pruned = Pruned()
    for entry in folder_entries(store.root):
        folder = store.root / entry.kind / entry.name
        if kind not in (None, entry.kind) or entry.used >= before:
            continue
        with _held(store, folder) as held:
            if not held:
                pruned.locked += 1
            elif folder.exists() and folder.stat().st_mtime < before:  # nobody came since we looked
                shutil.rmtree(set_aside(folder))
                pruned.entries.append(entry)
    for leftover, folder in _leftovers(store.root):
        if kind not in (None, folder.parent.name) or _newest(leftover) > time.time() - DAY_S:
            continue
        with _held(store, folder) as held:
            if held and leftover.is_dir():
                pruned.leftovers[leftover.relative_to(store.root).as_posix()] = tree_size(leftover)
                shutil.rmtree(leftover)
    return pruned


@contextlib.contextmanager
def _held(store: Store, folder: Path) -> Iterator[bool]:
    """Whether the entry's lock was free and now is ours. Its file goes with it: who waits for that makes another."""
    lock = store.lock(folder, timeout_s=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _leftovers(root: Path) -> Iterator[tuple[Path, Path]]:
    """What builders leave, each with the entry whose lock they held: new folders, states of a build, lock files."""
    for aside in root.glob("*/.*"):
        if match := _ASIDE.fullmatch(aside.name):
            yield aside, aside.with_name(match[1])
    for state in root.glob(f"{PARTIAL}/*/*"):
        yield state, root / state.parent.name / state.name
    for lock in root.glob(f"{LOCKS}/*"):
        kind, _, name = lock.name.rpartition("-")
        yield lock, root / kind / name


def _newest(path: Path) -> float:
    """When a file, or anything below a folder, was last written; in seconds since the epoch."""
    try:
        return max(found.stat().st_mtime for found in (path, *path.rglob("*")))
    except FileNotFoundError:  # somebody is at work on it
        return float("inf")


def _prune_remote(remote: Remote, before: float, kind: str | None) -> Pruned:
    pruned = Pruned(leftovers=_prune_remote_leftovers(remote, kind))
    found, objects = remote_entries(remote), remote_objects(remote)
    for entry in found:
        name = f"{entry.kind}/{entry.name}"
        if kind not in (None, entry.kind) or entry.used >= before:
            continue
        lease = Lease(remote.filesystem, remote.at(name, LEASE_FILE))
        if not lease.take():
            pruned.locked += 1
            continue
        with lease.kept():
            _remove(remote, f"{name}/{MANIFEST_FILE}")  # first: without it there is no entry
            for path in objects.get(name, {}).keys() - {MANIFEST_FILE, LEASE_FILE}:
                _remove(remote, f"{name}/{path}")
        pruned.entries.append(entry)
    return pruned


def _remove(remote: Remote, path: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # by another who prunes
        remote.filesystem.rm_file(remote.at(path))


def _prune_remote_leftovers(remote: Remote, kind: str | None) -> dict[str, int]:
    """Leases that nobody keeps fresh, and builds that no manifest names; both for a day."""
    objects, removed, old = remote_objects(remote), {}, time.time() - DAY_S
    manifests = remote_manifests(remote, objects)
    leases = remote.read_all({name: f"{name}/{LEASE_FILE}" for name, own in objects.items() if LEASE_FILE in own})
    beats = {name: when(str(parsed_object(text).get("time"))) for name, text in leases.items()}
    for name, own in objects.items():
        if kind not in (None, name.partition("/")[0]) or beats.get(name, 0.0) > old:
            continue
        named = manifests[name].build if name in manifests else None
        for path, size in own.items():
            if path == LEASE_FILE or _is_old_build(path.partition("/")[0], named, old):
                _remove(remote, f"{name}/{path}")
                removed[f"{name}/{path}"] = size
    return removed


def _is_old_build(name: str, named: str | None, old: float) -> bool:
    try:
        return name != named and build_time(name) < old
    except ValueError:
        return False
