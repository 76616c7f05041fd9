"""Ray nodes that are process groups of this machine, with token authentication."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

from tests.smoke.servers import free_port, kill

ROOT = Path(__file__).parents[2]
OBJECT_STORE_BYTES = 150 << 20


class Cluster:
    """A head, and other nodes; each pretends to have the CPUs and GPUs.

    Args:
        head_cpus: 0 keeps trials off the head; with 1, two trials at a time are on two nodes.
        nodes: how many there are, with the head.
    """

    def __init__(self, folder: Path, head_cpus: int = 1, nodes: int = 2, cpus: int = 1, gpus: int = 2) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",  # `sweeps` sets it to 0 wherever no cluster is named
        }
        self._folder, self._cpus, self._gpus = folder, cpus, gpus
        self.nodes: list[subprocess.Popen[bytes]] = []
        try:
            self._start(head_cpus, "--head", f"--port={self.address.partition(':')[2]}")
            for _ in range(nodes - 1):
                self.join()
        except BaseException:
            self.end()
            raise

    def join(self) -> None:
        """Another node."""
        self._start(self._cpus, f"--address={self.address}")

    def kill(self, node: int) -> None:
        """A node is gone, with all its processes; the first one is the head."""
        kill(self.nodes[node])

    def end(self) -> None:
        """All nodes are gone."""
        for node in self.nodes:
            kill(node)

    def _start(self, cpus: int, *arguments: str) -> None:
        call = "import sys; from ray.scripts.scripts import main; sys.argv[0] = 'ray'; sys.exit(main())"
        options = [f"--num-cpus={cpus}", f"--num-gpus={self._gpus}", "--node-ip-address=127.0.0.1", "--block"]
        options += [f"--object-store-memory={OBJECT_STORE_BYTES}", "--include-log-monitor=false"]
        options += [f"--temp-dir={self._folder}", "--include-dashboard=false"] if "--head" in arguments else []
        node = subprocess.Popen(
            [sys.executable, "-c", call, "start", *arguments, *options],
            env=os.environ | self.environment | {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.nodes.append(node)
        assert node.stdout is not None
        said = b""
        for line in node.stdout:
            said += line
            if b"--block" in line:  # it has started, and says how to stop it
                return
        raise AssertionError(said.decode())
