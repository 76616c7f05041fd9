"""`cluster-on-premise.yaml`, step by step as it says, with two hosts that are reached by ssh.

What it marks CHANGE is changed, and where it would download or compile, this machine's uv cache serves.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.smoke.hosts import DESK, USER, Hosts, missing
from tests.smoke.workspace import SPEC

pytestmark = [pytest.mark.smoke, pytest.mark.long, pytest.mark.skipif(bool(missing()), reason=missing())]
FILE = Path(__file__).parents[2] / "cluster-on-premise.yaml"
HEAD, WORKER = "10.77.0.1", "10.77.0.2"
RAY = ("uv", "tool", "run", "--python", "3.11", "--from", "ray[default]==2.60.*", "ray")
JOBS = ("--address", "http://127.0.0.1:8265")
SETTINGS = '{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "60"}}'


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    hosts = Hosts(tmp_path, [HEAD, WORKER])
    yield hosts
    hosts.end()


def test_a_sweep_is_launched_stopped_gone_on_with_and_taken_down(hosts: Hosts) -> None:
    subprocess.run([*RAY, "--version"], check=True, capture_output=True)  # the launcher is in uv's cache from here on
    cluster = launcher_file(hosts)
    serve_mlflow(hosts)
    spec = SPEC.format(name="small", trials=12, at_once=2, scheduler="none") + "resources: {cpu: 2}\n"
    (hosts.folder / "my_sweep.yaml").write_text(spec)
    at_desk(hosts, "get-auth-token", "--generate")
    at_desk(hosts, "up", "--yes", "--no-config-cache", cluster)
    start(hosts, "dashboard", cluster)
    while said_by(hosts, "job", "list", *JOBS)[0] != 0:  # until the tunnel is there
        time.sleep(1)
    at_desk(hosts, "rsync-up", cluster, str(hosts.folder / "my_sweep.yaml"), "~/my_sweep.yaml")
    submit(hosts, "first")
    wait_for(hosts, "first", "2/12 done")
    at_desk(hosts, "job", "stop", *JOBS, "first")
    assert "my_sweep.yaml --resume`" in logs(hosts, "first")
    submit(hosts, "second")
    wait_for(hosts, "second", "12 finished")
    assert nodes_of_trials(hosts) == {HEAD, WORKER}
    at_desk(hosts, "down", "--yes", cluster)
    assert "raylet" not in hosts.ssh(HEAD, "ps -ax")
    end = time.monotonic() + 120
    while "raylet" in hosts.ssh(WORKER, "ps -ax"):
        assert time.monotonic() < end
        time.sleep(2)


def launcher_file(hosts: Hosts) -> str:
    """The shipped file, changed as a person would."""
    cluster: dict[str, Any] = yaml.safe_load(FILE.read_text())
    cluster["provider"] |= {"head_ip": HEAD, "worker_ips": [WORKER]}
    cluster["auth"] = {"ssh_user": USER, "ssh_private_key": str(hosts.key)}
    cluster["max_workers"] = 1
    text = yaml.safe_dump(cluster, width=10_000)
    for shipped, here in {
        "http://mlflow.internal:5000": f"http://{DESK}:5000",
        "FORCE_CUDA=1": "FORCE_CUDA=0",
        "'$PALIMPSEST_STORAGE/uv-cache'": uv_cache(),
        "UV_LINK_MODE=copy": "UV_LINK_MODE=symlink",
        "UV_MANAGED_PYTHON=1": "UV_OFFLINE=1",
        "UV_PYTHON=3.11": f"UV_PYTHON={Path(sys.base_prefix) / 'bin' / 'python3'}",
    }.items():
        assert shipped in text, shipped
        text = text.replace(shipped, here)
    path = hosts.folder / "cluster.yaml"
    path.write_text(text)
    return str(path)


def serve_mlflow(hosts: Hosts) -> None:
    store = ["--backend-store-uri", f"sqlite:///{hosts.folder / 'mlflow.db'}"]
    store += ["--artifacts-destination", str(hosts.folder / "artifacts")]
    address = ["--host", DESK, "--workers", "1"]
    hosts.start(sys.executable, "-m", "mlflow", "server", *store, *address, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")


def uv_cache() -> str:
    return subprocess.run(["uv", "cache", "dir"], check=True, capture_output=True, text=True).stdout.strip()


def start(hosts: Hosts, *arguments: str) -> tuple[subprocess.Popen[bytes], Path]:
    settings = {**exported(), "RAY_USAGE_STATS_ENABLED": "0", "UV_OFFLINE": "1", "UV_CACHE_DIR": uv_cache()}
    return hosts.start(*RAY, *arguments, **settings)


def exported() -> dict[str, str]:
    """What the file's first comment exports."""
    return dict(re.findall(r"^#   export (\w+)=(\S+)", FILE.read_text(), re.MULTILINE))


def said_by(hosts: Hosts, *arguments: str) -> tuple[int, str]:
    """The exit status of `ray ...` at the desk, and what it printed."""
    process, printed = start(hosts, *arguments)
    return process.wait(timeout=900), printed.read_text()


def at_desk(hosts: Hosts, *arguments: str) -> str:
    status, printed = said_by(hosts, *arguments)
    assert status == 0, printed[-5000:]
    return printed


def submit(hosts: Hosts, name: str) -> None:
    told = ["--submission-id", name, "--no-wait", "--runtime-env-json", SETTINGS]
    at_desk(hosts, "job", "submit", *JOBS, *told, "--", "sweeps", "run", "~/my_sweep.yaml", "--resume")


def logs(hosts: Hosts, name: str) -> str:
    return at_desk(hosts, "job", "logs", *JOBS, name)


def nodes_of_trials(hosts: Hosts) -> set[str]:
    """Where the trials' last results came from."""
    state = max((hosts.shared / "sweeps" / "small" / "tune").glob("experiment_state-*.json"))
    return {json.loads(trial)["last_result"]["node_ip"] for _, trial in json.loads(state.read_bytes())["trial_data"]}


def wait_for(hosts: Hosts, name: str, said: str) -> None:
    end = time.monotonic() + 600
    while said not in (printed := logs(hosts, name)):
        assert time.monotonic() < end, printed[-3000:]
        assert "failed" not in at_desk(hosts, "job", "status", *JOBS, name).lower(), printed[-3000:]
        time.sleep(2)
