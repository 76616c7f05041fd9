"""Joining a Ray cluster, or starting one on this machine; what there is of it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.exceptions import RayError, RayTaskError
from ray.tune import Callback
from ray.tune.experiment import Trial

from trainables.devices import release
from trainables.errors import PalimpsestError, in_a_line
from trainables.tune import held_file

HEAD = "node:__internal_head__"  # a resource of the head alone
LAUNCHED = Path("~/ray_bootstrap_config.yaml")  # on a head that `ray up` started: what its autoscaler may start
AUTH_MODES = ("token", "disabled")


def connect_ray() -> Any:
    """Ray, connected: to the cluster of `RAY_ADDRESS` where it is set, else to one that ends with this process.

    Raises:
        PalimpsestError: the cluster does not take us, or nobody said how it knows who may.
    """
    if ray.is_initialized():
        return ray
    if (address := os.environ.get("RAY_ADDRESS")) and os.environ.get("RAY_AUTH_MODE") not in AUTH_MODES:
        must = f"RAY_AUTH_MODE must be what the nodes of {address} have, one of {', '.join(AUTH_MODES)}"
        raise PalimpsestError("cluster", [f"{must}, but is {os.environ.get('RAY_AUTH_MODE')!r}"])
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (OSError, RayError, RuntimeError, ValueError) as error:
        hint = "; is it up, and RAY_AUTH_TOKEN or ~/.ray/auth_token its token?" if address else ""
        raise PalimpsestError(
            "cluster", [f"{address or 'a local one'} must answer, but: {in_a_line(error)}{hint}"]
        ) from error
    return ray


@dataclass(frozen=True)
class Nodes:
    """Nodes that are alike.

    Attributes:
        amount: of them.
        ids: of those that are there; none of those that an autoscaler may start.
    """

    resources: Mapping[str, float]
    amount: int
    ids: tuple[str, ...] = ()

    def fit(self, need: Mapping[str, float]) -> int:
        """How many times they hold what is needed, each on one node."""
        per_node = [self.resources.get(kind, 0) / amount for kind, amount in need.items() if amount]
        return math.floor(min(per_node) + 1e-9) * self.amount


def nodes_of(ray: Any) -> list[Nodes]:
    """The nodes that are there and, in a cluster that `ray up` started, all that it may start."""
    there = [Nodes(node["Resources"], 1, (node["NodeID"],)) for node in ray.nodes() if node["Alive"]]
    launched = LAUNCHED.expanduser()
    if not (os.environ.get("RAY_ADDRESS") and launched.is_file()):
        return there
    config = yaml.safe_load(launched.read_text(encoding="utf-8"))
    types, most = config.get("available_node_types", {}), int(config.get("max_workers", 0))
    if config["provider"]["type"] == "local":
        return [*there, *machines(there, most)]
    head = config.get("head_node_type")
    workers = [
        Nodes(one.get("resources", {}), min(int(one.get("max_workers", most)), most))
        for name, one in types.items()
        if name != head
    ]
    return [*there, *workers]


def machines(there: Sequence[Nodes], workers: int) -> list[Nodes]:
    """Head and workers of a cluster on machines of one's own, where some may still be starting.

    Args:
        there: the nodes that have joined; what a worker has is only known from one that has, or else from the head.
        workers: how many there will be.
    """
    head = next(node for node in there if HEAD in node.resources)
    joined = [node for node in there if node is not head]
    return [Nodes(head.resources, 1), Nodes((joined or [head])[0].resources, workers)]


class Releasing(Callback):
    """Gives back the devices of trials of several, once these have ended; `folder` is that of the trials."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Ended by itself, or stopped."""
        release(held_file(self._folder, trial.trial_id))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Failed; where it is tried again it holds others."""
        release(held_file(self._folder, trial.trial_id))


def outcome(ray: Any, reference: Any) -> Any:
    """The result of a task.

    Raises:
        Exception: as the task raised it.
    """
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise error.cause from None
