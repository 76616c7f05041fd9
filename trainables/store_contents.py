"""What is in a store: its entries, with what they are, their sizes and when they were built and last used."""

from __future__ import annotations

import contextlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from trainables.store import LOCKS, PARTIAL, Store
from trainables.store_manifest import IDENTITY_FILE, MANIFEST_FILE, Manifest, parse_manifest, read_manifest
from trainables.store_remote import USED_FILE, Remote

ENTRY_NAME = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An entry, as it lies there.

    Attributes:
        name: digest of the identity; the entry is `<kind>/<name>`.
        identity: what it depends on; empty if that cannot be read.
        size: bytes.
        built, used: seconds since the epoch.
        whole: as far as names and sizes tell; digests are compared on use.
    """

    kind: str
    name: str
    identity: Mapping[str, Any]
    size: int
    built: float
    used: float
    whole: bool


def entries(store: Store) -> list[Entry]:
    """The entries of a store by kind; those at the URL where it has one."""
    found = remote_entries(store.remote) if store.remote else folder_entries(store.root)
    return sorted(found, key=lambda entry: (entry.kind, entry.built))


def folder_entries(root: Path) -> Iterator[Entry]:
    """The entries in a folder."""
    for folder in root.glob("*/*"):
        if ENTRY_NAME.fullmatch(folder.name) and folder.parent.name not in (LOCKS, PARTIAL):
            with contextlib.suppress(FileNotFoundError):  # pruned or replaced meanwhile
                yield _folder_entry(folder)


def _folder_entry(folder: Path) -> Entry:
    used = folder.stat().st_mtime
    try:
        manifest = read_manifest(folder)
        size, built, whole = manifest.size, manifest.built, manifest.fits(folder)
    except (OSError, ValueError):
        size, built, whole = tree_size(folder), used, False
    identity = _identity(folder / IDENTITY_FILE)
    return Entry(
        kind=folder.parent.name,
        name=folder.name,
        identity=identity,
        size=size,
        built=built,
        used=used,
        whole=whole and bool(identity),
    )


def _identity(path: Path) -> dict[str, Any]:
    try:
        return parsed_object(path.read_bytes())
    except OSError:
        return {}


def parsed_object(text: bytes) -> dict[str, Any]:
    """The JSON object in `text`; empty if it is none."""
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def tree_size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())


def remote_objects(remote: Remote) -> dict[str, dict[str, int]]:
    """Sizes in bytes of the objects of each entry, by the entry's name and by theirs in it."""
    remote.filesystem.invalidate_cache()
    objects: dict[str, dict[str, int]] = defaultdict(dict)
    for path, info in remote.filesystem.find(remote.root, detail=True).items():
        kind, _, rest = path.removeprefix(f"{remote.root}/").partition("/")
        name, _, rest = rest.partition("/")
        if rest and ENTRY_NAME.fullmatch(name):
            objects[f"{kind}/{name}"][rest] = info["size"]
    return objects


def remote_entries(remote: Remote) -> list[Entry]:
    """The entries at a URL: three requests, however many there are, where the file system batches."""
    objects = remote_objects(remote)
    manifests = remote_manifests(remote, objects)
    identities = remote.read_all(
        {name: f"{name}/{manifest.build}/{IDENTITY_FILE}" for name, manifest in manifests.items()}
    )
    uses = remote.read_all({name: f"{name}/{USED_FILE}" for name in manifests if USED_FILE in objects[name]})
    return [
        _remote_entry(name, manifest, objects[name], parsed_object(identities.get(name, b"")), uses.get(name, b""))
        for name, manifest in manifests.items()
    ]


def remote_manifests(remote: Remote, objects: Mapping[str, Mapping[str, int]]) -> dict[str, Manifest]:
    """The manifests at a URL by the name of the entry; one that cannot be read is no entry."""
    named = {name: f"{name}/{MANIFEST_FILE}" for name, own in objects.items() if MANIFEST_FILE in own}
    manifests = {}
    for name, text in remote.read_all(named).items():
        with contextlib.suppress(ValueError):
            manifests[name] = parse_manifest(text)
    return manifests


def _remote_entry(
    name: str, manifest: Manifest, objects: Mapping[str, int], identity: Mapping[str, Any], used: bytes
) -> Entry:
    kind, _, name = name.partition("/")
    there = all(objects.get(f"{manifest.build}/{file.name}") == file.size for file in manifest.files)
    return Entry(
        kind=kind,
        name=name,
        identity=identity,
        size=manifest.size,
        built=manifest.built,
        used=max(manifest.built, when(used)),
        whole=there and bool(identity),
    )


def when(text: bytes | str) -> float:
    """The time in ISO `text`, in seconds since the epoch; 0 if it is none."""
    try:
        return datetime.fromisoformat(text if isinstance(text, str) else text.decode()).timestamp()
    except ValueError:
        return 0.0
