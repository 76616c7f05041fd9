"""Programs of this machine, each in a process group that ends with its block."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

NICENESS = 10  # of what elsewhere has a machine of its own
PATIENCE_S = 300.0  # MLflow took 105 s to its first answer on two busy cores


@contextmanager
def running(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A program under way, whatever becomes of the block; `options` are those of `Popen`."""
    process = subprocess.Popen(command, start_new_session=True, **options)
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[Any]) -> None:
    """End a program that `start_new_session` made a group, with all that it started there."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    """One that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def answer(process: subprocess.Popen[Any], url: str) -> bytes:
    """What the server `process` says at `url`, as soon as it says anything.

    Raises:
        AssertionError: it has ended, or is silent for too long.
        HTTPError: it refuses.
    """
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urlopen(url, timeout=5) as said:
                return bytes(said.read())
        except HTTPError:
            raise
        except OSError:
            pass  # it does not listen yet
        assert process.poll() is None, f"{url}: the server has ended"
        assert time.monotonic() < until, f"{url}: the server does not answer"
        time.sleep(0.2)


@contextmanager
def mlflow_server(folder: Path, port: int, database: str, niceness: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """One that answers, over a database; artifacts go to `mlartifacts` in its folder."""
    command = ["server", "--backend-store-uri", database, "--workers", "1"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # eight processes that nobody asks
    with _mlflow(command, port, folder, quiet, niceness) as server:
        yield server


@contextmanager
def model_server(model: str, port: int, folder: Path, tracking_uri: str) -> Iterator[subprocess.Popen[bytes]]:
    """One that answers, of a registered model."""
    paths = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    command = ["models", "serve", "-m", model, "--env-manager", "local"]
    with _mlflow(command, port, folder, {**paths, "MLFLOW_TRACKING_URI": tracking_uri}) as server:
        yield server


@contextmanager
def _mlflow(
    command: list[str], port: int, folder: Path, environment: dict[str, str], niceness: int = 0
) -> Iterator[subprocess.Popen[bytes]]:
    whole = ["nice", "-n", str(niceness), sys.executable, "-m", "mlflow", *command]
    whole += ["--host", "127.0.0.1", "--port", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with running(whole, cwd=folder, env=os.environ | environment, **quiet) as server:
        answer(server, f"http://127.0.0.1:{port}/health")
        yield server
