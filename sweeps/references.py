"""What all trials share is built before the search, as Ray tasks: base step, joint references, compared methods."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps.cluster import outcome
from sweeps.progress import Display, duration
from sweeps.spec import SweepSpec
from trainables.catalog import METHODS
from trainables.config import Runtime, TrialConfig
from trainables.environment import printing_into
from trainables.errors import in_a_line
from trainables.records import PROGRESS_FILE, chain_metrics, known_score, partial_step
from trainables.table_plans import image_plan, latent_plan, response_plan, shares_backbone, target_plan
from trainables.tune import chain_task, first_step_task, tables_task

REFERENCE_METRICS = ("ap_all", "ap_old", "ap_new", "ap50_all", "ap75_all", "hmean", "forgetting", "omega", "rel_gap")
"""What the sweep's run tells of its references; everything about them is in the store."""


class Tasks:
    """Ray tasks with names, each with the resources of one trial, and a live line of how far they are.

    Attributes:
        spent_s: the seconds of all tasks that are done.
    """

    def __init__(self, ray: Any, spec: SweepSpec, display: Display, what: str = "reference") -> None:
        self._ray, self._display, self._what = ray, display, what
        own = spec.resources.of_process
        self._logs = spec.folder / "logs"
        self._options = {"num_cpus": own["CPU"], "num_gpus": own["GPU"], "max_retries": 2}
        self.spent_s = 0.0
        self._names: dict[Any, str] = {}
        self._seconds: dict[Any, Any] = {}
        self._optional: set[str] = set()

    def submit(self, name: str, function: Any, *arguments: Any, optional: bool = False) -> Any:
        """Start `function(*arguments)` as soon as resources and the tasks among its arguments are there.

        Args:
            optional: the others can do without its result.
        """
        task = self._ray.remote(num_returns=2, **self._options)(_timed)
        log = self._logs / f"{re.sub(r'[^A-Za-z0-9.+-]+', '_', name)}.txt"
        reference, seconds = task.remote(log, function, *arguments)
        self._names[reference], self._seconds[reference] = name, seconds
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
                    results[name] = outcome(self._ray, reference)
                    self.spent_s += outcome(self._ray, self._seconds[reference])
                    self._display.say(f"{self._what} {name}: done")
                except Exception as error:
                    if name not in self._optional:
                        raise
                    self._display.say(f"{self._what} {name}: failed, {in_a_line(error)}")
            self._display.now(f"{self._what}s: {len(results)} of {len(self._names)} done{_under_way(steps_under_way)}")
        return results


def _timed(log: Path, function: Any, *arguments: Any) -> tuple[Any, float]:
    begin = time.perf_counter()
    with printing_into(log):
        return function(*arguments), time.perf_counter() - begin


def _under_way(steps: Mapping[str, Path]) -> str:
    lines = []
    for name, folder in steps.items():
        try:
            progress = json.loads((folder / PROGRESS_FILE).read_text())
        except (OSError, ValueError):
            continue
        lines.append(f"{name} {progress['done']}/{progress['of']} epochs, {duration(progress['left_s'])} left")
    return f"; {'; '.join(lines)}" if lines else ""


class References:
    """What a sweep's trials share on one scenario, under way; `results` waits for it.

    Args:
        configs: of any trial of each method of the sweep.
        others: the chains to compare with; they go on from the same base step.
        teachers: of a scenario of one step, each of the next one.
        checks: of the nodes, under way; nothing is trained before.
    """

    def __init__(
        self,
        ray: Any,
        spec: SweepSpec,
        configs: Mapping[str, TrialConfig],
        others: Mapping[str, TrialConfig],
        teachers: Mapping[str, TrialConfig],
        runtime: Runtime,
        checks: Sequence[Any],
        display: Display,
    ) -> None:
        announce_tables(configs, runtime, display)
        config = next(iter(configs.values()))
        tasks, last = Tasks(ray, spec, display), len(config.scenario.steps) - 1
        base = base_tasks(tasks, config, teachers, runtime, *checks)
        first = [base, *joint_tasks(tasks, spec, config, runtime, *checks)]
        tables = [base]
        for method, own in configs.items():  # one after another: they share the images and targets
            name = "tables" if len(configs) == 1 else f"tables of {method}"
            tables.append(tasks.submit(name, tables_task, own, runtime, tables[-1]))
        for name, other in others.items():
            tasks.submit(name, chain_task, other, runtime, *tables, *first, optional=True)
        chains = {joint_name(step, last): config.joint(step) for step in range(1, last + 1)}
        steps = {name: partial_step(chain, runtime) for name, chain in (chains | dict(others)).items()}
        below = teachers or {"base step": config}
        steps |= {name: partial_step(own, runtime, 0) for name, own in below.items()}
        self._tasks, self._steps, self._others = tasks, steps, others

    def results(self) -> tuple[dict[str, list[dict[str, Any]]], float]:
        """The events of the compared chains by name, and the seconds that it took, of all tasks together."""
        results = self._tasks.results(self._steps)
        return {name: results[name] for name in self._others if name in results}, self._tasks.spent_s


def base_tasks(
    tasks: Tasks, config: TrialConfig, teachers: Mapping[str, TrialConfig], runtime: Runtime, *after: Any
) -> Any:
    """What all trials begin with, under way: the base step or, of a scenario of one step, one teacher after another."""
    if not teachers:
        return tasks.submit("base step", first_step_task, config.joint(0), runtime, *after)
    for name, teacher in teachers.items():
        after = (tasks.submit(name, first_step_task, teacher, runtime, *after),)
    return after[0]


def joint_tasks(tasks: Tasks, spec: SweepSpec, config: TrialConfig, runtime: Runtime, *after: Any) -> list[Any]:
    """The joint references of all steps but the first, under way; none where the sweep does without them."""
    last = len(config.scenario.steps) - 1
    steps = range(1, last + 1) if spec.joint else ()
    return [
        tasks.submit(joint_name(step, last), first_step_task, config.joint(step), runtime, *after) for step in steps
    ]


def teacher_scores(teachers: Mapping[str, TrialConfig], runtime: Runtime) -> dict[str, dict[str, float]]:
    """AP of each teacher of a scenario of one step."""
    found = {name: chain_metrics(one, [known_score(one, runtime, 0)], None) for name, one in teachers.items()}
    return {name: {key: own[key] for key in ("ap_all", "ap50_all", "ap75_all")} for name, own in found.items()}


def announce_tables(configs: Mapping[str, TrialConfig], runtime: Runtime, display: Display) -> None:
    """Say how large the tables of the first step that trials train will be or, where one is not kept, why and what runs
    instead.
    """
    config = next(iter(configs.values()))
    first = config.first_step
    plans = {
        "images": (image_plan(runtime.splits.train, config.recipe, runtime), "loaded anew"),
        "targets": (target_plan(config, runtime, first), "assigned anew"),
    }
    for method, own in configs.items():
        whose = "" if len(configs) == 1 else f" for {method}"
        if METHODS[method].taught:
            plans[f"responses{whose}"] = (response_plan(own, runtime, first), "the teacher runs live")
        if shares_backbone(own):
            plans[f"latents{whose}"] = (latent_plan(own, runtime, first), "the backbone runs for each batch")
    for kind, (plan, otherwise) in plans.items():
        table = f"a table of about {plan.num_bytes / 1e6:,.0f} MB for all trials"
        instead = f"{otherwise} instead of {table}" if plan.num_bytes else otherwise
        display.say(f"{kind}: {table if plan.kept else f'{instead}: {plan.reason}'}")


def joint_name(step: int, last: int) -> str:
    """What the reference of a step (from 0) is called."""
    return "joint" if step == last else f"joint of steps 1 to {step + 1}"
