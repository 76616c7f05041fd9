"""What an entry of the store holds, file by file: how a whole one is told from a damaged one."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

from trainables.files import digest, sha256, write_json

IDENTITY_FILE = "identity.json"
MANIFEST_FILE = "manifest.json"

_BUILD_TIME = "%Y%m%dT%H%M%SZ"
_BUILD_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")

Signature = frozenset[tuple[str, int, int, int]]


@dataclass(frozen=True)
class StoredFile:
    """A file of an entry: name relative to the entry with `/` between folders, size in bytes, SHA-256 in hex."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The files of an entry, and the build they come from: its time (UTC) and a random part."""

    build: str
    files: tuple[StoredFile, ...]

    @property
    def built(self) -> float:
        """When it was built, in seconds since the epoch."""
        return build_time(self.build)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    def matches(self, folder: Path) -> bool:
        """Whether every file is in `folder` with its size and digest."""
        return self.fits(folder) and all(sha256(folder / file.name) == file.sha256 for file in self.files)

    def fits(self, folder: Path) -> bool:
        """Whether every file is in `folder` with its size; the cheap half of `matches`."""
        paths = [folder / file.name for file in self.files]
        return all(
            path.is_file() and path.stat().st_size == file.size for path, file in zip(paths, self.files, strict=True)
        )


def written_manifest(folder: Path) -> Manifest:
    """The manifest of the files in `folder`, which it now holds."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = [StoredFile(path.relative_to(folder).as_posix(), path.stat().st_size, sha256(path)) for path in paths]
    manifest = Manifest(f"{datetime.now(UTC):{_BUILD_TIME}}-{uuid4().hex[:8]}", tuple(files))
    write_json(folder / MANIFEST_FILE, asdict(manifest))
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest in `folder`.

    Raises:
        OSError: there is none.
        ValueError: it is not one.
    """
    return parse_manifest((folder / MANIFEST_FILE).read_bytes())


def parse_manifest(text: bytes) -> Manifest:
    """The manifest in JSON `text`.

    Raises:
        ValueError: not a manifest, or one whose files would lie outside their folder.
    """
    try:
        content = json.loads(text)
        files = tuple(StoredFile(**file) for file in content["files"])
        manifest = Manifest(content["build"], files)
        sound = _is_build(manifest.build) and all(_inside(file.name) and file.size >= 0 for file in files)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a manifest: {error!r}") from error
    if not sound:
        raise ValueError("not a manifest of files below its folder")
    return manifest


def build_time(build: str) -> float:
    """When the build of this name was made, in seconds since the epoch.

    Raises:
        ValueError: not the name of a build.
    """
    return datetime.strptime(build.partition("-")[0], _BUILD_TIME).replace(tzinfo=UTC).timestamp()


def _is_build(name: Any) -> bool:
    return isinstance(name, str) and _BUILD_NAME.fullmatch(name) is not None


def _inside(name: str) -> bool:
    path = PurePosixPath(name)
    plain = path.parts and path.as_posix() == name and "\\" not in name
    return bool(plain) and not path.is_absolute() and ".." not in path.parts


_hashed: dict[Path, Signature] = {}  # entries that this process has hashed, as they then were


def intact(folder: Path) -> bool:
    """Whether `folder` is a whole entry.

    Its files are hashed once a process: a table of hundreds of megabytes is asked for by every trial. After that
    sizes, times and inodes must be as they were.
    """
    try:
        signature = _signature(folder)
        if _hashed.get(folder) == signature:
            return True
        whole = read_manifest(folder).matches(folder) and _identity_digest(folder) == folder.name
    except (OSError, ValueError):
        return False
    if whole:
        _hashed[folder] = signature
    return whole


def _signature(folder: Path) -> Signature:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    stats = [path.stat() for path in paths]
    return frozenset((str(path), s.st_size, s.st_mtime_ns, s.st_ino) for path, s in zip(paths, stats, strict=True))


def _identity_digest(folder: Path) -> str:
    return digest(json.loads((folder / IDENTITY_FILE).read_bytes()))
