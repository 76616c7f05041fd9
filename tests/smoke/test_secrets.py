"""Credentials come from the environment and are found nowhere afterwards; servers listen to this machine alone."""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.smoke.servers import free_port, mlflow_server
from tests.smoke.workspace import ROOT, Workspace

pytestmark = pytest.mark.smoke

PLANTED = ("MLFLOW_TRACKING_PASSWORD", "PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN")
LISTENING = """
import json
from sweeps.cluster import connect_ray
ray = connect_ray()
ray.get(ray.remote(lambda: 0).remote())
import psutil
family = [psutil.Process(), *psutil.Process().children(recursive=True)]
listening = [one for process in family for one in process.net_connections() if one.status == "LISTEN"]
print(json.dumps([one.laddr.ip for one in listening]))
"""


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """Where an MLflow server listens that knows none of the secrets."""
    port = free_port()
    with mlflow_server(tmp_path, port, f"sqlite:///{tmp_path}/mlflow.db"):
        yield port


@pytest.mark.long
def test_planted_secrets_are_found_nowhere(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = {name: secrets.token_hex(32) for name in PLANTED}
    in_address, ray = secrets.token_hex(8), tmp_path_factory.mktemp("r")  # whose sockets have no long path
    for name, value in planted.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_TMPDIR", str(ray))
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{in_address}@127.0.0.1:{port}")
    workspace = Workspace(tmp_path)
    away = "study: postgresql+psycopg://me@127.0.0.1:1/optuna\n"
    printed = workspace.run("run", str(workspace.write_spec("small", more=away)))
    assert "2 finished" in printed
    assert "the study was not copied" in printed
    printed += workspace.run("show", "small") + workspace.run("report", "small")
    for address in ("http://me:{}@127.0.0.1:1", "postgresql+psycopg://me:{}@127.0.0.1:1/mlflow", "htp://me:{}@host"):
        told = workspace.run("show", "small", "--tracking-uri", address.format(in_address), status=1)
        assert "me:***@" in told
        printed += told

    sought = [*planted.values(), in_address]
    sought += [base64.b64encode(f"me:{value}".encode()).decode() for value in sought]
    (tmp_path / "printed").write_text(printed)
    files = [path for folder in (tmp_path, ray) for path in folder.rglob("*") if path.is_file()]
    assert {"mlflow.db", "report.html", "tuner.pkl", "runtime_env_agent.log"} <= {path.name for path in files}
    assert [(path, one) for path in files for one in sought if one.encode() in path.read_bytes()] == []


def test_a_local_cluster_listens_on_the_loopback_interface_alone(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    printed = subprocess.run(
        [sys.executable, "-c", LISTENING], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    ).stdout
    addresses = [ip_address(address.removeprefix("::ffff:")) for address in json.loads(printed.splitlines()[-1])]
    assert addresses
    assert all(address.is_loopback for address in addresses)
