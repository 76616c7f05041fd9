"""A sweep on a cluster of two nodes that know their users by a token; each node is a process group of this machine."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.smoke.conftest import Workspace
from tests.smoke.test_resume import figures, until

pytestmark = pytest.mark.smoke
ROOT = Path(__file__).parents[2]


class Cluster:
    """Nodes of one CPU and two pretended GPUs each, so that two trials at a time are on two nodes."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{one.getsockname()[1]}"
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self._folder = folder
        self.nodes = [self._start("--head", f"--port={self.address.partition(':')[2]}")]
        self.join()

    def join(self) -> None:
        """Another node."""
        self.nodes.append(self._start(f"--address={self.address}"))

    def kill(self, node: int) -> None:
        """A node is gone, with all its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self.nodes[node].pid, signal.SIGKILL)
        self.nodes[node].wait()

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        call = "import sys; from ray.scripts.scripts import main; sys.argv[0] = 'ray'; sys.exit(main())"
        options = ["--num-cpus=1", "--num-gpus=2", "--node-ip-address=127.0.0.1", "--disable-usage-stats", "--block"]
        options += [f"--temp-dir={self._folder}", "--include-dashboard=false"] if "--head" in arguments else []
        node = subprocess.Popen(
            [sys.executable, "-c", call, "start", *arguments, *options],
            env=os.environ | self.environment | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert node.stdout is not None
        said = b""
        for line in node.stdout:
            said += line
            if b"--block" in line:  # it has started, and says how to stop it
                return node
        raise AssertionError(said.decode())


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("ray"))
    for name, value in {**cluster.environment, "RAY_ADDRESS": cluster.address}.items():
        monkeypatch.setenv(name, value)
    yield cluster
    for node in range(len(cluster.nodes)):
        cluster.kill(node)


def test_trials_run_on_both_nodes_and_outlive_one(workspace: Workspace, cluster: Cluster) -> None:
    spec = workspace.write_spec("spread", trials=4)
    driver = workspace.start("run", str(spec))
    until(driver, "1/4 done, 1 running")  # two at a time, and a node has one CPU
    cluster.kill(1)
    cluster.join()
    printed, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, printed
    assert "4 finished" in printed
    assert len(figures(workspace, "spread")) == 4


def test_what_no_node_has_is_refused_by_what_there_is(workspace: Workspace, cluster: Cluster) -> None:
    spec = workspace.write_spec("greedy", more="resources: {cpu: 1, gpu: 3}\n")
    printed = workspace.run("run", str(spec), status=1)
    assert printed.strip().endswith(
        "resources: a trial asks for 1 CPU, 3 GPU, but the nodes have 1 CPU, 2 GPU; 1 CPU, 2 GPU"
    )


def test_who_has_another_token_is_told_so(
    workspace: Workspace, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = secrets.token_hex(32)
    monkeypatch.setenv("RAY_AUTH_TOKEN", secret)
    printed = workspace.run("run", str(workspace.write_spec("stranger")), status=1)
    assert f"cluster: {cluster.address} must answer, but: " in printed
    assert printed.strip().endswith("is it up, and RAY_AUTH_TOKEN or ~/.ray/auth_token its token?")
    assert secret not in printed
    assert cluster.environment["RAY_AUTH_TOKEN"] not in printed
