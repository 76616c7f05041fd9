"""Results that trials share: built once under a lock, written aside and renamed, found by what determines them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from trainables.files import digest, write_json, written_whole

PROGRESS_FILE = "progress.json"
"""In the partial folder of a step under way: epochs `done`, `of` how many, seconds `left_s`."""


class Store:
    """A folder of results, `<kind>/<digest of the identity>`, on a path that all nodes share.

    An entry is a folder with `identity.json` and whatever its builder wrote. The lock is the operating system's: it
    falls with its owner's process, so a dead owner blocks nobody.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, kind: str, identity: Mapping[str, Any]) -> Path:
        """Where the entry is, or will be."""
        return self.root / kind / digest(identity)

    def partial(self, kind: str, identity: Mapping[str, Any]) -> Path:
        """A folder for the state of an unfinished build: the next builder finds it; it goes when the entry is whole."""
        return self.root / "partial" / kind / digest(identity)

    def get(self, kind: str, identity: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
        """The entry's folder, built by `build(folder)` if it is not there; others wait for a build under way."""
        path = self.path(kind, identity)
        if path.exists():
            return path
        lock = self.root / "locks" / f"{kind}-{path.name}"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            if not path.exists():
                with written_whole(path) as aside:
                    aside.mkdir()
                    build(aside)
                    write_json(aside / "identity.json", identity)
                self.discard(kind, identity)
        return path

    def discard(self, kind: str, identity: Mapping[str, Any]) -> None:
        """Remove the state of an unfinished build."""
        shutil.rmtree(self.partial(kind, identity), ignore_errors=True)
