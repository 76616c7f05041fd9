"""Results that trials share: built once, found by what determines them, whole or absent, on a path or a URL."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock

from trainables.files import digest, write_json, written_whole
from trainables.store_manifest import IDENTITY_FILE, intact, written_manifest
from trainables.store_remote import AbsentError, Remote, is_url

LOCKS, PARTIAL = "locks", "partial"
DAY_S = 86400.0

Build = Callable[[Path], None]
"""Writes plain files into an empty folder."""


class Store:
    """Entries `<kind>/<digest of the identity>`, shared by all that know its root.

    An entry is a folder: `identity.json`, what its builder wrote, and a manifest with size and digest of each file. It
    appears whole, by a rename, and is never written to again. One that was damaged since is found on use and replaced,
    again by renames: open files and memory maps of the old one stay what they were. The folder's time of modification
    is when the entry was last used.

    Processes that share a file system wait for each other by a lock of the operating system, which falls with its
    owner. Hosts that share a URL mirror its entries into a local cache, and wait for each other by a lease.

    Args:
        root: a folder, which all nodes must share, or a URL of fsspec, such as `s3://bucket/palimpsest`.

    Attributes:
        root: the folder; for a URL the cache of this host, below `PALIMPSEST_CACHE` or the user's cache folder.
        remote: what the URL holds; None for a folder.

    Raises:
        SpecError: a URL that cannot be used: unknown protocol, or a package that it needs is missing.
    """

    def __init__(self, root: Path | str) -> None:
        self.remote = Remote(str(root)) if is_url(root) else None
        self.root = _cache_folder(str(root)) if self.remote else Path(root)

    def path(self, kind: str, identity: Mapping[str, Any]) -> Path:
        """Where the entry's folder is or will be on this host; whether it is whole is what `find` and `get` know."""
        return self.root / _checked(kind) / digest(identity)

    def partial(self, kind: str, identity: Mapping[str, Any]) -> Path:
        """A folder for the state of an unfinished build: the next builder finds it; it goes when the entry is whole.

        It is on this host alone where the root is a URL.
        """
        return self.root / PARTIAL / _checked(kind) / digest(identity)

    def find(self, kind: str, identity: Mapping[str, Any]) -> Path | None:
        """The entry's folder if it is there and whole, else None. Builds nothing, but fetches from a URL."""
        path = self.path(kind, identity)
        if not intact(path) and self.remote:
            with self.lock(path):
                _ = intact(path) or self._fetch(path, self.remote)
        if not intact(path):
            return None
        self._note_use(path)
        return path

    def get(self, kind: str, identity: Mapping[str, Any], build: Build) -> Path:
        """The entry's folder, built by `build(folder)` if it is not there; others wait for a build under way."""
        path = self.path(kind, identity)
        if not intact(path):
            with self.lock(path):
                if not intact(path):
                    self._fill(path, identity, build)
        self._note_use(path)
        return path

    def discard(self, kind: str, identity: Mapping[str, Any]) -> None:
        """Remove the state of an unfinished build."""
        shutil.rmtree(self.partial(kind, identity), ignore_errors=True)

    def lock(self, path: Path, timeout_s: float = -1) -> FileLock:
        """The lock of an entry among the processes that share this file system; held while it is built."""
        lock = self.root / LOCKS / f"{path.parent.name}-{path.name}"
        lock.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(lock, timeout=timeout_s)

    def _fill(self, path: Path, identity: Mapping[str, Any], build: Build) -> None:
        if (remote := self.remote) is None:
            self._build(path, identity, build)
        else:
            name = _name(path)
            remote.once(name, lambda: self._fetch(path, remote), lambda: self._build(path, identity, build))
        self.discard(path.parent.name, identity)

    def _build(self, path: Path, identity: Mapping[str, Any], build: Build) -> None:
        with _replaced(path) as aside:
            build(aside)
            write_json(aside / IDENTITY_FILE, identity)
            manifest = written_manifest(aside)
            if self.remote:  # first: an entry that others cannot have is built again, from its partial state
                self.remote.publish(_name(path), aside, manifest)

    def _fetch(self, path: Path, remote: Remote) -> bool:
        try:
            with _replaced(path) as aside:
                remote.fetch(_name(path), aside)
        except AbsentError:
            return False
        remote.note_use(_name(path))
        return True

    def _note_use(self, path: Path) -> None:
        with contextlib.suppress(OSError):  # one may use a store that one may not write to
            idle_s = time.time() - path.stat().st_mtime
            os.utime(path)
            if self.remote and idle_s > DAY_S:
                self.remote.note_use(_name(path))


def set_aside(path: Path) -> Path:
    """Where the folder `path` is now: beside, under a name that no entry has."""
    aside = path.with_name(f".{path.name}.{uuid4().hex}")
    path.rename(aside)
    return aside


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """Yield a new folder that takes the place of `path` once it is whole; what was there goes after that.

    Between the two renames there is neither, for some microseconds: who then asks waits for the lock, which we hold.
    """
    old = None
    with written_whole(path) as aside:
        aside.mkdir()
        yield aside
        if path.exists():
            old = set_aside(path)
    if old:
        shutil.rmtree(old, ignore_errors=True)


def _checked(kind: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", kind) or kind in (LOCKS, PARTIAL):
        raise ValueError(f"a kind must be a plain name other than {LOCKS} and {PARTIAL}, but is {kind!r}")
    return kind


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _cache_folder(url: str) -> Path:
    base = os.environ.get("PALIMPSEST_CACHE")
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) if base else Path(user, "palimpsest")
    protocol = url.partition("://")[0]
    return folder.absolute() / f"{protocol}-{digest(url.rstrip('/'))}"  # not the URL: it may hold a password
