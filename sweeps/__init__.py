"""Many trials: from one YAML file to a searched, recorded and promoted configuration.

In: a sweep file. Out: an MLflow experiment (sweep > trial > step runs), a report and a registered champion.
May import `search_spaces` and `trainables`, Ray, Optuna and MLflow. Knows nothing of tensors.
"""

import os

# Ray reads these when it is imported; what a person has set stays. With Ray's defaults, workers of `uv run` would each
# build an environment, and a first local cluster would write a token into the home folder.
ENVIRONMENT = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",  # the display is ours
}
if "RAY_ADDRESS" not in os.environ:  # a cluster's nodes know their mode, and whoever joins them says it
    ENVIRONMENT["RAY_AUTH_MODE"] = "disabled"
    # Where it may form no clusters, which it asks on any system, Ray listens on the loopback interface alone.
    ENVIRONMENT["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
for _name, _value in ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
