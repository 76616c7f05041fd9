"""One trial: from a `TrialConfig` to the AP of every class after every step, with or without Ray.

In: a scenario, a detector, a method and its parameters, a recipe, a data set, a seed.
Out: `StepResult`s (weights, per-class AP, cost) and the `Summary` computed from them.
May import `search_spaces`, torch, mmengine, mmdet. Knows nothing of MLflow, Optuna or other trials.
What `sweeps check` needs (catalog, scenarios, recipes, errors) imports none of the heavy packages.
"""

import os

os.environ.setdefault(
    "OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 28)
)  # of an image; OpenCV's own bound takes 3 GB of memory
