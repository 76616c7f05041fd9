"""A sweep on a cluster of two nodes that know their users by a token; each node is a process group of this machine."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.smoke.nodes import Cluster
from tests.smoke.workspace import Workspace, ended, until

pytestmark = pytest.mark.smoke


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("ray"))
    for name, value in {**cluster.environment, "RAY_ADDRESS": cluster.address}.items():
        monkeypatch.setenv(name, value)
    yield cluster
    cluster.end()


def test_trials_run_on_both_nodes_and_outlive_one(workspace: Workspace, cluster: Cluster) -> None:
    spec = workspace.write_spec("spread", trials=4)
    with workspace.running("run", str(spec)) as driver:
        until(driver, "1/4 done, 1 running")  # two at a time, and a node has one CPU
        cluster.kill(1)
        cluster.join()
        assert "4 finished" in ended(driver)
    assert len(workspace.figures("spread")) == 4


def test_what_no_node_has_is_refused_by_what_there_is(workspace: Workspace, cluster: Cluster) -> None:
    spec = workspace.write_spec("greedy", more="resources: {gpu: 3}\n")
    printed = workspace.run("run", str(spec), status=1)
    assert printed.strip().endswith(
        "resources: a trial asks for 3 CPU, 3 GPU, but the nodes have 1 CPU, 2 GPU; 1 CPU, 2 GPU"
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
