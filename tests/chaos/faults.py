"""What can happen to a sweep: each fault is made ready before it, strikes, and is mended."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.chaos.box import Box
from tests.smoke.nodes import Cluster
from tests.smoke.servers import free_port, mlflow_server

OUTAGE_S = 15.0  # of a disk, a store or a server
FULL = "ballast"


class Fault:
    """Nothing happens."""

    def __init__(self, box: Box) -> None:
        """Make ready what the sweep in `box` will run on."""
        self.box = box

    def strike(self, process: subprocess.Popen[str]) -> None:
        """Let it happen to the sweep that `process` drives."""

    def mend(self) -> None:
        """Make good what a person would before they go on."""

    def end(self) -> None:
        """Leave nothing behind."""


class Driver(Fault):
    """SIGKILL of the driver."""

    def strike(self, process: subprocess.Popen[str]) -> None:
        process.kill()
        process.wait()


class Worker(Fault):
    """SIGKILL of the processes that train."""

    def strike(self, process: subprocess.Popen[str]) -> None:
        for pid in _children(process.pid):
            with suppress(OSError):
                if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::"):
                    os.kill(pid, signal.SIGKILL)


class Node(Fault):
    """SIGKILL of everything on the only node that trains; another one joins."""

    def __init__(self, box: Box) -> None:
        super().__init__(box)
        self.cluster = Cluster(box.aside("ray"), head_cpus=0)
        box.environment |= {**self.cluster.environment, "RAY_ADDRESS": self.cluster.address}

    def strike(self, process: subprocess.Popen[str]) -> None:
        self.cluster.kill(1)
        self.cluster.join()

    def end(self) -> None:
        self.cluster.end()


class Stranger(Node):
    """Somebody with another token tries to use the cluster."""

    def strike(self, process: subprocess.Popen[str]) -> None:
        stranger = Box(self.box.aside("stranger"))
        stranger.environment |= self.box.environment | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
        printed = stranger.run("run", status=1)
        assert "must answer, but" in printed, printed


class Server(Fault):
    """SIGKILL of the MLflow server; it comes back later."""

    def __init__(self, box: Box) -> None:
        super().__init__(box)
        self._port, self._server = free_port(), ExitStack()
        self.mend()
        box.environment["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{self._port}"

    def strike(self, process: subprocess.Popen[str]) -> None:
        self.end()
        time.sleep(OUTAGE_S)

    def mend(self) -> None:
        self._server.enter_context(mlflow_server(self.box.folder, self._port, self.box.database))

    def end(self) -> None:
        self._server.close()


class Disk(Fault):
    """The disk with the sweep and the store is full for a while."""

    def __init__(self, box: Box) -> None:
        super().__init__(box)
        self.runs = box.folder / "runs"
        self.runs.mkdir()
        _mount("-t", "tmpfs", "-o", "size=256m", "tmpfs", str(self.runs))

    def strike(self, process: subprocess.Popen[str]) -> None:
        with suppress(OSError), (self.runs / FULL).open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(1 << 16))
        time.sleep(OUTAGE_S)

    def mend(self) -> None:
        (self.runs / FULL).unlink()

    def end(self) -> None:
        while self.runs.is_mount():
            subprocess.run(["umount", "--lazy", str(self.runs)], check=True)


class Store(Disk):
    """The disk with the sweep and the store cannot be written to for a while."""

    def strike(self, process: subprocess.Popen[str]) -> None:
        # Open files forbid to make their own mount read-only; whatever is opened from now on meets this one.
        _mount("--bind", str(self.runs), str(self.runs))
        _mount("-o", "remount,bind,ro", str(self.runs))
        time.sleep(OUTAGE_S)

    def mend(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.runs)], check=True)


FAULTS: dict[str, type[Fault]] = {
    "driver killed": Driver,
    "worker killed": Worker,
    "node killed": Node,
    "MLflow killed": Server,
    "disk full": Disk,
    "store read-only": Store,
    "another token": Stranger,
}


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _children(pid: int) -> Iterator[int]:
    """The processes below one, whatever generation."""
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                yield child
                yield from _children(child)
