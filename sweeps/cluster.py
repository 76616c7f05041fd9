"""Joining a Ray cluster, or starting one on this machine."""

from __future__ import annotations

from typing import Any

import ray


def connect() -> Any:
    """Ray, connected: to the cluster of `RAY_ADDRESS` where it is set, else to one that ends with this process."""
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    return ray
