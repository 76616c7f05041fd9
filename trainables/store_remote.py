"""A store at a URL: entries that hosts share through any file system that fsspec speaks.

<url>/<kind>/<digest>/manifest.json      what the entry is; written last, so that without it there is no entry
<url>/<kind>/<digest>/<build>/<files>    of the build that the manifest names; another build has another folder
<url>/<kind>/<digest>/lease.json         while a host builds it
<url>/<kind>/<digest>/used               when a host last fetched it, or used it for the first time in a day
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainables import store_lease
from trainables.errors import SpecError
from trainables.store_lease import Lease
from trainables.store_manifest import MANIFEST_FILE, Manifest, parse_manifest

LEASE_FILE, USED_FILE = "lease.json", "used"


class AbsentError(Exception):
    """There is no whole entry at the URL."""


def is_url(root: Path | str) -> bool:
    """Whether a store's root is a URL, not a folder."""
    return isinstance(root, str) and "://" in root


class Remote:
    """The entries at a URL, each by its name `<kind>/<digest>`.

    Raises:
        SpecError: unknown protocol, or a package that it needs is missing.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.filesystem, self.root = _file_system(self.url)

    def once(self, name: str, fetch: Callable[[], bool], build: Callable[[], None]) -> None:
        """Fetch the entry, or build it if no other host does; wait for one that does.

        Args:
            fetch: False if there is no whole entry.
            build: leaves a whole entry, here and at the URL.
        """
        lease, tried = Lease(self.filesystem, self.at(name, LEASE_FILE)), None
        while True:
            manifest = self._manifest(name)
            if manifest != tried and fetch():
                return
            tried = manifest  # damaged, if there is one: not to be fetched again before it is replaced
            if lease.take():
                break
            time.sleep(store_lease.LEASE_S / 30)
        with lease.kept():
            if self._manifest(name) == tried or not fetch():  # built since we looked?
                build()

    def fetch(self, name: str, folder: Path) -> None:
        """Write the entry's files and manifest into `folder`.

        Raises:
            AbsentError: there is none, or what there is is damaged.
        """
        text = self._manifest(name)
        if text is None:
            raise AbsentError(name)
        try:
            manifest = parse_manifest(text)
            for file in manifest.files:
                (folder / file.name).parent.mkdir(parents=True, exist_ok=True)
                self.filesystem.get_file(self.at(name, manifest.build, file.name), str(folder / file.name))
        except (ValueError, FileNotFoundError) as error:
            raise AbsentError(name) from error
        if not manifest.matches(folder):
            raise AbsentError(name)
        (folder / MANIFEST_FILE).write_bytes(text)

    def publish(self, name: str, folder: Path, manifest: Manifest) -> None:
        """Make the files in `folder` the entry, in place of what there was."""
        before = self._manifest(name)
        for file in manifest.files:
            self.filesystem.put_file(str(folder / file.name), self.at(name, manifest.build, file.name))
        self.filesystem.pipe_file(self.at(name, MANIFEST_FILE), manifest.text.encode())
        if before is not None:
            with contextlib.suppress(ValueError, FileNotFoundError):
                self.filesystem.rm(self.at(name, parse_manifest(before).build), recursive=True)

    def note_use(self, name: str) -> None:
        """Write down that the entry is in use now."""
        with contextlib.suppress(OSError):  # one may use a store that one may not write to
            self.filesystem.pipe_file(self.at(name, USED_FILE), datetime.now(UTC).isoformat().encode())

    def read_all(self, objects: Mapping[str, str]) -> dict[str, bytes]:
        """The bytes of many objects of the store, given by their paths in it; without those that are not there."""
        keys = {self.at(path): key for key, path in objects.items()}
        texts = self.filesystem.cat(list(keys), on_error="omit") if keys else {}
        return {keys[path]: text for path, text in texts.items()}

    def at(self, *parts: str) -> str:
        """The path of an object of the store in its file system."""
        return "/".join((self.root, *parts))

    def _manifest(self, name: str) -> bytes | None:
        try:
            text: bytes = self.filesystem.cat_file(self.at(name, MANIFEST_FILE))
        except FileNotFoundError:
            return None
        return text


def _file_system(url: str) -> tuple[Any, str]:
    import fsspec  # only where there is a URL

    protocol, _, path = url.partition("://")
    if ".." in path.split("/"):
        raise SpecError(url, ["cannot be a store: `..` must not be in its path"])
    options = {"auto_mkdir": True} if protocol in ("file", "local") else {}
    try:
        filesystem, root = fsspec.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        raise SpecError(url, [f"cannot be a store: {error}"]) from error
    return filesystem, root.rstrip("/")
