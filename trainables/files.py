"""Files that appear complete or not at all, and digests of what they hold."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from trainables.errors import CheckpointError, PalimpsestError, in_a_line

MAX_BYTES = 8 << 30


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a path to write a file or a folder to; `path` then appears complete, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        if aside.is_dir():
            shutil.rmtree(aside)
        else:
            aside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON with sorted keys, whole; nan and infinity are refused."""
    with written_whole(path) as aside:
        aside.write_text(json.dumps(value, sort_keys=True, allow_nan=False), encoding="utf-8")


def read_json(path: Path, kind: type[PalimpsestError] = CheckpointError) -> Any:
    """What a JSON file holds.

    Raises:
        PalimpsestError: of that kind; it cannot be read, is no JSON, or is too large.
    """
    try:
        return json.loads(read_at_most(path, MAX_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else in_a_line(error)
        raise kind(str(path), [f"must be a JSON file, but: {why}"]) from error


def read_at_most(path: Path, max_bytes: int) -> bytes:
    """The bytes of a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it has more than `max_bytes`.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size  # 0 of a pipe
        content = b"" if size > max_bytes else file.read(-1 if size else max_bytes + 1)
    if max(size, len(content)) > max_bytes:
        raise ValueError(f"must have at most {max_bytes} bytes, but has {size or 'more'}")
    return content


def is_web_address(origin: str) -> bool:
    """Whether `origin` is the URL of a server, and not a path or a database."""
    return origin.startswith(("http://", "https://"))


def digest(value: Any) -> str:
    """The first 16 hex digits of the SHA-256 of `value` as canonical JSON: the identity of a configuration."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digest(path: Path) -> str:
    """The first 16 hex digits of the SHA-256 of a file's bytes."""
    return sha256(path)[:16]
