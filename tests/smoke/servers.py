"""Servers of this machine, in process groups of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

NICENESS = 10  # of what elsewhere has a machine of its own


def free_port() -> int:
    """One that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def mlflow_server(folder: Path, port: int, database: str, niceness: int = 0) -> subprocess.Popen[bytes]:
    """One that answers, over a database; artifacts go to `mlartifacts` in its folder."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    server = subprocess.Popen(
        ["nice", "-n", str(niceness), *command],
        cwd=folder,
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # eight processes that nobody asks
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until = time.monotonic() + 120
    while True:
        with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return server
        assert time.monotonic() < until, "the MLflow server does not start"
        time.sleep(0.2)
