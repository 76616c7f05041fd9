"""Joining a Ray cluster, or starting one on this machine; what every process of a sweep has in its environment."""

from __future__ import annotations

import os
from typing import Any

# Ray reads these when it is imported. With its defaults, workers of `uv run` would each build an environment, and a
# first local cluster would write a token into the home folder.
ENVIRONMENT = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


def set_environment() -> None:
    """Set what Ray reads at import; what a person has set stays."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def connect() -> Any:
    """Ray, connected: to the cluster of `RAY_ADDRESS` where it is set, else to one that ends with this process."""
    set_environment()
    import ray

    if not ray.is_initialized():
        ray.init(
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"env_vars": {"PYTHONWARNINGS": "ignore"}},
        )
    return ray
