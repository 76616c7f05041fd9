"""Before anything is spent: whether trials can run where they would."""

from __future__ import annotations

import os
import socket
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeps.cluster import Nodes, nodes_of, outcome
from sweeps.progress import Display
from sweeps.spec import SweepSpec
from trainables.environment import package_versions, require_ops
from trainables.errors import PalimpsestError, SpecError
from trainables.files import is_web_address, written_whole

WAIT_FOR_NODE_S = 1800.0  # for the first that an autoscaler starts: it boots, and may install
AGREE = ("python", "palimpsest", "torch", "onedl-mmcv", "onedl-mmengine", "onedl-mmdetection", "ray", "numpy")


class Preflight:
    """The checks of each node that can run a trial, under way; `passed` waits for them.

    Attributes:
        at_once: how many trials of the sweep run at a time.
        checks: what a task waits for that is to run only where all is well. Its process has torch loaded then.

    Raises:
        SpecError: no node can run a trial, nor can one that an autoscaler may start.
    """

    def __init__(self, ray: Any, spec: SweepSpec) -> None:
        self._ray, need = ray, _need(spec)
        nodes = nodes_of(ray)
        self.at_once = min(_slots(spec, nodes), spec.trials)
        marker, token = spec.folder / "preflight", uuid.uuid4().hex
        with written_whole(marker) as aside:
            aside.write_text(token, encoding="utf-8")
        arguments = (marker, token, _files(spec), versions_here(), socket.gethostname())
        self._ids = [one for node in nodes if node.fit(need) for one in node.ids]
        options: list[dict[str, Any]] = [
            {"num_cpus": 0, "num_gpus": need["GPU"], "scheduling_strategy": _on(one)} for one in self._ids
        ]
        # Where no node is there yet, the wish for one makes the autoscaler start it.
        options = options or [{"num_cpus": need["CPU"], "num_gpus": need["GPU"]}]
        self.checks = [ray.remote(**one)(check_node).remote(*arguments) for one in options]

    def passed(self, display: Display) -> None:
        """Wait until every node has said that all is well.

        Raises:
            PalimpsestError: what must be mended, of all nodes.
        """
        problems: list[str] = []
        for check in self._ended(display):
            try:
                outcome(self._ray, check)
            except PalimpsestError as error:
                if len(self.checks) == 1:
                    raise
                problems += [f"{error.subject}: {problem}" for problem in error.problems]
        if problems:
            raise PalimpsestError("cluster", problems)

    def _ended(self, display: Display) -> list[Any]:
        until = time.monotonic() + WAIT_FOR_NODE_S
        while self._ray.wait(self.checks, num_returns=len(self.checks), timeout=1.0)[1]:
            display.now("waiting for a node to say that it can run a trial")
            if not self._ids and time.monotonic() > until:
                raise SpecError("resources", [f"no node for a trial has come in {WAIT_FOR_NODE_S / 60:.0f} minutes"])
        return self.checks


def slots(spec: SweepSpec, ray: Any) -> int:
    """How many trials of a sweep could run at a time, were there enough of them.

    Raises:
        SpecError: none can run.
    """
    return _slots(spec, nodes_of(ray))


def _need(spec: SweepSpec) -> dict[str, float]:
    return {"CPU": float(spec.resources.cpu), "GPU": float(spec.resources.gpu)}


def _slots(spec: SweepSpec, nodes: list[Nodes]) -> int:
    need = _need(spec)
    there = sum(node.fit(need) for node in nodes if node.ids)
    startable = sum(node.fit(need) for node in nodes if not node.ids)
    fits = max(there, startable)  # what an autoscaler started is among what it may start
    if not fits:
        holding = "; ".join(
            f"{one.resources.get('CPU', 0):g} CPU, {one.resources.get('GPU', 0):g} GPU" for one in nodes if one.amount
        )
        asked = f"a trial asks for {need['CPU']:g} CPU, {need['GPU']:g} GPU"
        raise SpecError("resources", [f"{asked}, but the nodes have {holding}"])
    return min(fits, spec.max_concurrent or fits)


def check_node(marker: Path, token: str, files: Mapping[str, Path], versions: Mapping[str, str], driver: str) -> None:
    """Nothing, where this node can run a trial.

    Args:
        marker: a file that the driver has put into the sweep's folder, with `token` inside.
        files: what trials read, by its key in the sweep file.
        versions: of the driver.
        driver: its host.

    Raises:
        PalimpsestError: everything that must be mended here.
    """
    problems: list[str] = []
    own = versions_here()
    try:
        require_ops()
    except PalimpsestError as error:
        problems += error.problems
    if not (marker.is_file() and marker.read_text(encoding="utf-8") == token):
        problems.append(
            f"must share the sweep's storage with {driver}, but does not see {marker.parent} as it is there; "
            "set `storage` or PALIMPSEST_STORAGE to a path that all nodes mount"
        )
    elif not os.access(marker.parent, os.W_OK):
        problems.append(f"must be able to write to {marker.parent}, the sweep's storage")
    problems += [f"{path} ({key}) must be there, as on {driver}" for key, path in files.items() if not path.exists()]
    problems += [
        f"{name} must be {version} as on {driver}, but is {own.get(name, 'missing')}"
        for name, version in versions.items()
        if own.get(name) != version
    ]
    if problems:
        raise PalimpsestError(f"node {socket.gethostname()}", problems)


def versions_here() -> dict[str, str]:
    """The version here of what all nodes must have alike."""
    python = ".".join(map(str, sys.version_info[:2]))
    return {name: version for name, version in ({"python": python} | package_versions()).items() if name in AGREE}


def _files(spec: SweepSpec) -> dict[str, Path]:
    """What trials read, and a person named."""
    named = {"training.pretrained": spec.pretrained}
    for number, one in enumerate(spec.teachers):
        named |= {f"teacher.{number}.checkpoint": one.checkpoint, f"teacher.{number}.pretrained": one.pretrained}
    if spec.data.kind != "digits":  # which are drawn into the storage
        named["data.root"] = spec.data.root
    return {key: Path(path) for key, path in named.items() if path and not is_web_address(path)}


def _on(node_id: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=True)  # one that leaves meanwhile is missed by nobody
