"""`cluster.yaml` against Ray's own schema; its commands run by bash with a `ray` that only tells how it was called."""

from __future__ import annotations

import json
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[1]
CLUSTER: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
NODE_TYPES: dict[str, dict[str, Any]] = CLUSTER["available_node_types"]


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    ray = find_spec("ray")
    assert ray is not None
    assert ray.origin is not None
    return json.loads((Path(ray.origin).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """The home folder of a node after the first setup command, whose `ray` prints its arguments and environment."""
    ray = tmp_path / "palimpsest" / ".venv" / "bin" / "ray"
    ray.parent.mkdir(parents=True)
    ray.write_text('#!/bin/sh\necho "$@"\nenv\n', encoding="utf-8")
    ray.chmod(0o755)
    run_on(tmp_path, CLUSTER["setup_commands"][0])
    return tmp_path


def run_on(home: Path, command: str) -> list[str]:
    """The lines that `command` prints on a node, wrapped as Ray wraps it."""
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin", "RAY_HEAD_IP": "10.0.0.1"}
    wrapped = ["bash", "-c", f"export OMP_NUM_THREADS=1 && ({command})"]
    return subprocess.run(wrapped, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()


def test_conforms_to_rays_schema(schema: dict[str, Any]) -> None:
    jsonschema.validate(CLUSTER, schema)


def test_a_misspelt_key_would_be_found(schema: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minute"):
        jsonschema.validate(CLUSTER | {"idle_timeout_minute": 5}, schema)


def test_provider_keys_are_known_although_the_schema_lets_any_pass(schema: dict[str, Any]) -> None:
    assert set(CLUSTER["provider"]) <= set(schema["properties"]["provider"]["properties"])


def test_node_types_fit_together() -> None:
    assert CLUSTER["head_node_type"] in NODE_TYPES
    assert sum(node_type.get("min_workers", 0) for node_type in NODE_TYPES.values()) <= CLUSTER["max_workers"]
    for node_type in NODE_TYPES.values():
        assert node_type["resources"], "Ray would guess them"
        assert all(type(amount) is int for amount in node_type["resources"].values())


def test_trials_run_on_spot_workers_and_never_on_the_head() -> None:
    head = NODE_TYPES[CLUSTER["head_node_type"]]
    workers = [node_type for node_type in NODE_TYPES.values() if node_type is not head]
    assert workers
    assert head["resources"]["CPU"] == 0
    for worker in workers:
        assert worker["resources"]["GPU"] >= 1
        assert worker["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"


def test_what_is_shipped_exists_and_holds_the_whole_install() -> None:
    shipped = {remote: local for remote, local in CLUSTER["file_mounts"].items() if remote.startswith("~/palimpsest/")}
    assert {"pyproject.toml", "uv.lock", "search_spaces", "trainables", "sweeps"} <= set(shipped.values())
    assert [local for local in shipped.values() if not (ROOT / local).exists()] == []
    assert CLUSTER["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


@pytest.mark.parametrize("phase", ["setup_commands", "head_start_ray_commands", "worker_start_ray_commands"])
def test_commands_are_bash(phase: str) -> None:
    assert CLUSTER[phase]
    for command in CLUSTER[phase]:
        subprocess.run(["bash", "-n", "-c", f"({command})"], check=True)


def test_the_head_shows_its_dashboard_to_itself_alone(node: Path) -> None:
    called_with = [run_on(node, command)[0] for command in CLUSTER["head_start_ray_commands"]]
    starts = [arguments for arguments in called_with if arguments.startswith("start")]
    assert len(starts) == 1
    assert "--dashboard-host=127.0.0.1" in starts[0].split()


def test_a_worker_joins_the_head(node: Path) -> None:
    assert run_on(node, CLUSTER["worker_start_ray_commands"][-1])[0].startswith("start --address=10.0.0.1:6379")


@pytest.mark.parametrize("command", CLUSTER["head_start_ray_commands"] + CLUSTER["worker_start_ray_commands"])
def test_every_start_command_sets_the_auth_mode_and_the_addresses(node: Path, command: str) -> None:
    told = run_on(node, command)
    assert "RAY_AUTH_MODE=token" in told
    assert "RAY_ENABLE_UV_RUN_RUNTIME_ENV=0" in told
    assert any(line.startswith("MLFLOW_TRACKING_URI=http") for line in told)
    assert any(line.startswith("PALIMPSEST_STORAGE=/") for line in told)


def test_the_environment_is_the_locked_one_with_cuda_operations(node: Path) -> None:
    syncs = [command for command in CLUSTER["setup_commands"] if "uv sync" in command]
    assert len(syncs) == 1
    assert "--locked" in syncs[0]
    told = run_on(node, syncs[0].replace("uv sync", "ray sync"))
    assert "FORCE_CUDA=1" in told
    assert any(line.startswith("TORCH_CUDA_ARCH_LIST=") for line in told), "without a GPU, torch has none to ask"
    shared = next(line.removeprefix("PALIMPSEST_STORAGE=") for line in told if line.startswith("PALIMPSEST_STORAGE="))
    assert f"UV_CACHE_DIR={shared}/uv-cache" in told
