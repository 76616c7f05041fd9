"""The right to build an entry of a store that hosts share by a URL: an object that its owner keeps fresh."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

LEASE_S = 60.0
"""An owner that gives no sign of life for so long counts as dead. It gives four in that time."""


class Lease:
    """Taken by one host at a time, of those that share a file system.

    A lease is stale when it stays the same for `LEASE_S` by the watcher's own clock: the hosts' clocks need not agree.
    Where the file system has no exclusive creation (S3, GCS, Azure, local and memory have it), two hosts that come
    within the same moment may both take it; then both build, and the store keeps one of two good results.

    Args:
        filesystem: of fsspec.
        path: of the object, in that file system.
    """

    def __init__(self, filesystem: Any, path: str) -> None:
        self._filesystem, self._path = filesystem, path
        self._owner = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self._seen: bytes | None = None
        self._seen_at = 0.0

    def take(self) -> bool:
        """Whether the lease is ours now; False while its owner lives. To be asked again, every few seconds."""
        content = self._read()
        if content is None:
            return self._create()
        if content != self._seen:
            self._seen, self._seen_at = content, time.monotonic()
        if time.monotonic() - self._seen_at < LEASE_S:
            return False
        self._write()
        time.sleep(LEASE_S / 60)  # of several that take over in this moment, the last to write has it
        return self._is_ours()

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the taken lease fresh, and give it back at the end."""
        done = threading.Event()
        thread = threading.Thread(target=self._keep_fresh, args=(done,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            if self._is_ours():
                with contextlib.suppress(FileNotFoundError):
                    self._filesystem.rm_file(self._path)

    def _keep_fresh(self, done: threading.Event) -> None:
        while not done.wait(LEASE_S / 4):
            with contextlib.suppress(OSError):  # the network may come back before the lease is stale
                if not self._is_ours():
                    return
                self._write()

    def _create(self) -> bool:
        try:
            if getattr(self._filesystem, "local_file", False):  # its `mode="create"` looks first and writes then
                with self._filesystem.open(self._path, "xb") as file:
                    file.write(self._content())
            else:
                self._filesystem.pipe_file(self._path, self._content(), mode="create")
        except OSError:  # each file system has its own for "there already": FileExistsError, EINVAL of S3's 412
            if self._read() is None:
                raise
        return self._is_ours()

    def _write(self) -> None:
        self._filesystem.pipe_file(self._path, self._content())

    def _read(self) -> bytes | None:
        try:
            content: bytes = self._filesystem.cat_file(self._path)
        except FileNotFoundError:
            return None
        return content

    def _is_ours(self) -> bool:
        try:
            return bool(json.loads(self._read() or b"{}").get("owner") == self._owner)
        except ValueError:  # another is writing it
            return False

    def _content(self) -> bytes:
        return json.dumps({"owner": self._owner, "time": datetime.now(UTC).isoformat()}).encode()
