"""The cluster files against Ray's own schema; their commands run by bash with a `ray` that tells how it was called."""

from __future__ import annotations

import json
import subprocess
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[1]
File = dict[str, Any]


def read(name: str) -> File:
    """A file of the project's root."""
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


CLOUD, ON_PREMISE = read("cluster.yaml"), read("cluster-on-premise.yaml")
LAUNCHED = pytest.mark.parametrize("cluster", [CLOUD, ON_PREMISE], ids=["cloud", "on premise"])
NODE_TYPES: dict[str, File] = CLOUD["available_node_types"]


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    ray = find_spec("ray")
    assert ray is not None
    assert ray.origin is not None
    return json.loads((Path(ray.origin).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))


def node(home: Path, cluster: File) -> Path:
    """The home folder of a node after the first setup command, whose `ray` prints its arguments and environment."""
    ray = home / "palimpsest" / ".venv" / "bin" / "ray"
    ray.parent.mkdir(parents=True)
    ray.write_text('#!/bin/sh\necho "$@"\nenv\n', encoding="utf-8")
    ray.chmod(0o755)
    run_on(home, cluster["setup_commands"][0])
    return home


def run_on(home: Path, command: str) -> list[str]:
    """The lines that `command` prints on a node, wrapped as Ray wraps it."""
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin", "RAY_HEAD_IP": "10.0.0.1"}
    wrapped = ["bash", "-c", f"export OMP_NUM_THREADS=1 && ({command})"]
    return subprocess.run(wrapped, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()


@LAUNCHED
def test_a_cluster_file_conforms_to_rays_schema(cluster: File, schema: File) -> None:
    jsonschema.validate(cluster, schema)


@LAUNCHED
def test_a_misspelt_key_would_be_found(cluster: File, schema: File) -> None:
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        jsonschema.validate(cluster | {"max_worker": 5}, schema)


@LAUNCHED
def test_provider_keys_are_known_although_the_schema_lets_any_pass(cluster: File, schema: File) -> None:
    assert set(cluster["provider"]) <= set(schema["properties"]["provider"]["properties"])


def test_node_types_fit_together() -> None:
    assert CLOUD["head_node_type"] in NODE_TYPES
    assert sum(node_type.get("min_workers", 0) for node_type in NODE_TYPES.values()) <= CLOUD["max_workers"]
    for node_type in NODE_TYPES.values():
        assert node_type["resources"], "Ray would guess them"
        assert all(type(amount) is int for amount in node_type["resources"].values())


def test_trials_run_on_spot_workers_and_never_on_the_head() -> None:
    head = NODE_TYPES[CLOUD["head_node_type"]]
    workers = [node_type for node_type in NODE_TYPES.values() if node_type is not head]
    assert workers
    assert head["resources"]["CPU"] == 0
    for worker in workers:
        assert worker["resources"]["GPU"] >= 1
        assert worker["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"


def test_machines_that_are_there_are_named_and_all_started() -> None:
    assert ON_PREMISE["provider"]["head_ip"] not in ON_PREMISE["provider"]["worker_ips"]
    assert len(ON_PREMISE["provider"]["worker_ips"]) == ON_PREMISE["max_workers"]
    assert "available_node_types" not in ON_PREMISE, "Ray refuses them beside head_ip"


@LAUNCHED
def test_what_is_shipped_exists_and_holds_the_whole_install(cluster: File) -> None:
    shipped = {remote: local for remote, local in cluster["file_mounts"].items() if remote.startswith("~/palimpsest/")}
    assert {"pyproject.toml", "uv.lock", "search_spaces", "trainables", "sweeps"} <= set(shipped.values())
    assert [local for local in shipped.values() if not (ROOT / local).exists()] == []
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


@LAUNCHED
@pytest.mark.parametrize("phase", ["setup_commands", "head_start_ray_commands", "worker_start_ray_commands"])
def test_every_command_of_a_cluster_file_is_bash(cluster: File, phase: str) -> None:
    assert cluster[phase]
    for command in cluster[phase]:
        subprocess.run(["bash", "-n", "-c", f"({command})"], check=True)


@LAUNCHED
def test_the_head_shows_its_dashboard_to_itself_alone(cluster: File, tmp_path: Path) -> None:
    home = node(tmp_path, cluster)
    called_with = [run_on(home, command)[0] for command in cluster["head_start_ray_commands"]]
    starts = [arguments for arguments in called_with if arguments.startswith("start")]
    assert len(starts) == 1
    assert "--dashboard-host=127.0.0.1" in starts[0].split()


@LAUNCHED
def test_a_worker_joins_the_head(cluster: File, tmp_path: Path) -> None:
    (*_, start) = cluster["worker_start_ray_commands"]
    assert run_on(node(tmp_path, cluster), start)[0].startswith("start --address=10.0.0.1:6379")


@LAUNCHED
def test_every_start_command_sets_the_auth_mode_and_the_addresses(cluster: File, tmp_path: Path) -> None:
    home = node(tmp_path, cluster)
    for command in cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"]:
        told = run_on(home, command)
        assert "RAY_AUTH_MODE=token" in told
        assert "RAY_ENABLE_UV_RUN_RUNTIME_ENV=0" in told
        assert any(line.startswith("MLFLOW_TRACKING_URI=http") for line in told)
        assert any(line.startswith("PALIMPSEST_STORAGE=/") for line in told)


@LAUNCHED
def test_the_environment_is_the_locked_one_with_cuda_operations(cluster: File, tmp_path: Path) -> None:
    syncs = [command for command in cluster["setup_commands"] if "uv sync" in command]
    assert len(syncs) == 1
    assert "--locked" in syncs[0]
    told = run_on(node(tmp_path, cluster), syncs[0].replace("uv sync", "ray sync"))
    assert "FORCE_CUDA=1" in told
    assert any(line.startswith("TORCH_CUDA_ARCH_LIST=") for line in told), "without a GPU, torch has none to ask"
    shared = next(line.removeprefix("PALIMPSEST_STORAGE=") for line in told if line.startswith("PALIMPSEST_STORAGE="))
    assert f"UV_CACHE_DIR={shared}/uv-cache" in told


def test_a_job_on_kubernetes_begins_again_where_it_was_and_leaves_nothing_running() -> None:
    job = read("cluster-kuberay.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert spec["entrypoint"].startswith("sweeps run ")
    assert spec["entrypoint"].endswith(" --resume")
    assert spec["backoffLimit"] > 0
    assert spec["shutdownAfterJobFinishes"]
    assert int(yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) >= 30


def test_pods_share_a_volume_an_image_and_a_token() -> None:
    cluster = read("cluster-kuberay.yaml")["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["rayVersion"] == version("ray")
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    pods = [group["template"]["spec"] for group in groups]
    (containers,) = zip(*(pod["containers"] for pod in pods), strict=True)
    assert len({container["image"] for container in containers}) == 1
    for pod, container in zip(pods, containers, strict=True):
        (volume,), (mount,) = pod["volumes"], container["volumeMounts"]
        told = {entry["name"]: entry["value"] for entry in container["env"]}
        assert volume["name"] == mount["name"]
        assert told["PALIMPSEST_STORAGE"].startswith(mount["mountPath"] + "/")
        assert container["resources"]["limits"] == container["resources"]["requests"]
