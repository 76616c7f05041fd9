"""Joining a Ray cluster, or starting one on this machine."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import RayTaskError

from trainables.environment import require_ops


def connect() -> Any:
    """Ray, connected: to the cluster of `RAY_ADDRESS` where it is set, else to one that ends with this process."""
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    return ray


def checking_installation(ray: Any) -> Any:
    """The check that a worker can train, under way: `outcome` tells. Whoever trains next finds torch loaded there."""
    return ray.remote(require_ops).remote()


def outcome(ray: Any, reference: Any) -> Any:
    """The result of a task.

    Raises:
        Exception: as the task raised it.
    """
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise error.cause from None
