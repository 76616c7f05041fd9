"""What all trials share is built before the search, as Ray tasks: base step, joint references, compared methods."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.exceptions import RayTaskError

from sweeps.progress import Display, duration
from sweeps.spec import SweepSpec
from trainables.config import Runtime, TrialConfig
from trainables.store import PROGRESS_FILE, Store
from trainables.tune import chain_task, joint_task

REFERENCE_METRICS = ("ap_all", "ap_old", "ap_new", "ap50_all", "ap75_all", "hmean", "forgetting", "omega", "rel_gap")
"""What the sweep's run tells of its references; everything about them is in the store."""


class Tasks:
    """Ray tasks with names, each with the resources of one trial, and a live line of how far they are."""

    def __init__(self, ray: Any, spec: SweepSpec, display: Display) -> None:
        self._ray, self._display = ray, display
        self._options = {"num_cpus": spec.resources.cpu, "num_gpus": spec.resources.gpu, "max_retries": 2}
        self._names: dict[Any, str] = {}
        self._optional: set[str] = set()

    def submit(self, name: str, function: Any, *arguments: Any, optional: bool = False) -> Any:
        """Start `function(*arguments)` as soon as resources and the tasks among its arguments are there.

        Args:
            optional: the others can do without its result.
        """
        reference = self._ray.remote(**self._options)(function).remote(*arguments)
        self._names[reference] = name
        if optional:
            self._optional.add(name)
        return reference

    def results(self, steps_under_way: Mapping[str, Path]) -> dict[str, Any]:
        """The result of every task by name; an optional task that failed has none, the error of another is raised."""
        waiting, results = list(self._names), {}
        while waiting:
            done, waiting = self._ray.wait(waiting, timeout=1.0)
            for reference in done:
                name = self._names[reference]
                try:
                    results[name] = self._ray.get(reference)
                    self._display.say(f"reference {name}: done")
                except RayTaskError as error:
                    if name not in self._optional:
                        raise error.cause from None
                    self._display.say(f"reference {name}: failed, {error.cause}")
            self._display.now(f"references: {len(results)} of {len(self._names)} done{_under_way(steps_under_way)}")
        return results


def _under_way(steps: Mapping[str, Path]) -> str:
    lines = []
    for name, folder in steps.items():
        try:
            progress = json.loads((folder / PROGRESS_FILE).read_text())
        except (OSError, ValueError):
            continue
        lines.append(f"{name} {progress['done']}/{progress['of']} epochs, {duration(progress['left_s'])} left")
    return f"; {', '.join(lines)}" if lines else ""


def build_references(
    ray: Any,
    spec: SweepSpec,
    config: TrialConfig,
    others: Mapping[str, TrialConfig],
    runtime: Runtime,
    display: Display,
) -> dict[str, list[dict[str, Any]]]:
    """Train and score what is missing in the store; the events of the compared chains by name.

    Args:
        config: of any trial of the sweep.
        others: the chains to compare with; they go on from the same base step.
    """
    tasks, last = Tasks(ray, spec, display), len(config.scenario.steps) - 1
    base = tasks.submit("base step", joint_task, config, runtime, 0)
    joints = [tasks.submit(joint_name(step, last), joint_task, config, runtime, step) for step in range(1, last + 1)]
    for name, other in others.items():
        tasks.submit(name, chain_task, other, runtime, base, *joints, optional=True)
    store = Store(runtime.store)
    steps = {
        joint_name(step, last): store.partial("steps", config.joint(step).step_identity(0))
        for step in range(1, last + 1)
    }
    steps["base step"] = store.partial("steps", config.step_identity(0))
    steps |= {name: store.partial("steps", other.step_identity(last)) for name, other in others.items()}
    results = tasks.results(steps)
    return {name: results[name] for name in others if name in results}


def joint_name(step: int, last: int) -> str:
    """What the reference of a step (from 0) is called."""
    return "joint" if step == last else f"joint of steps 1 to {step + 1}"
