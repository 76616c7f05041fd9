"""A trial: a fold over the scenario's steps, in which the student of one step is the teacher of the next."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from mmdet.models import BaseDetector

from trainables.config import Runtime, TrialConfig
from trainables.environment import prepare_process
from trainables.metrics import FloatArray
from trainables.records import chain_metrics, known_joint_ap, score_identity, voc_means
from trainables.step import StepResult, class_ap, run_step, teacher_weights
from trainables.training import build_step_tables

Report = Callable[[dict[str, Any]], None]
"""Receives an event: `progress`, `step` (from 0), `first_step` that the trial trains, `timestamp_ms`, `metrics` (of
metrics by name; those taken inside a step end in `_mid`), and at the end of a step `classes` (rows of the per-class
table), `ap_matrix`, `facts`, and `scored`: what its score in the store depends on."""


def run_trial(config: TrialConfig, runtime: Runtime, report: Report) -> list[StepResult]:
    """The results of every step. The same configuration gives the same numbers, interrupted or not.

    Raises:
        TrainingError: a loss that is not finite, with step, iteration and name.
    """
    prepare_process(config.threads)
    joint = known_joint_ap(config, runtime)
    results: list[StepResult] = []
    for step in range(len(config.scenario.steps)):

        def after_epoch(student: BaseDetector, epoch: int, losses: Mapping[str, float], step: int = step) -> None:
            progress = config.progress_at(step, epoch)
            if step >= config.first_step and progress in runtime.report_at:
                ap = [*(result.ap for result in results), class_ap(student, config, runtime, step)]
                metrics = {f"{name}_mid": value for name, value in chain_metrics(config, ap, joint).items()}
                report(_event(config, progress, step, {**metrics, **losses}))

        results.append(run_step(config, runtime, step, results[-1] if results else None, after_epoch))
        report(_step_event(config, runtime, results, joint))
    return results


def run_first_step(config: TrialConfig, runtime: Runtime) -> StepResult:
    """The first step alone, from the store or trained and scored now: the base step, a joint reference or a teacher."""
    prepare_process(config.threads)
    return run_step(config, runtime, 0, None)


def build_tables(config: TrialConfig, runtime: Runtime) -> None:
    """Put the tables of the first step that trials train into the store; what teaches it is there already."""
    prepare_process(config.threads)
    first = config.first_step
    base = run_step(config, runtime, first - 1, None).weights if first else teacher_weights(config, runtime)
    build_step_tables(config, runtime, first, base)


def _step_event(
    config: TrialConfig, runtime: Runtime, results: list[StepResult], joint: Mapping[str, FloatArray]
) -> dict[str, Any]:
    last = results[-1]
    step, names = last.step, config.scenario.class_names
    classes = [
        {"class": names[label], "step": config.scenario.class_step[label] + 1}
        | {kind: values[label] for kind, values in last.ap.items()}
        for label in range(len(config.scenario.seen(step)))
    ]
    metrics = chain_metrics(config, [result.ap for result in results], joint) | voc_means(last.ap)
    event = _event(config, config.progress_at(step, config.epochs), step, metrics)
    matrix = {"classes": names, "ap": [result.ap["ap"] for result in results]}
    scored = score_identity(config, runtime, step)
    return event | {"classes": classes, "ap_matrix": matrix, "facts": last.facts, "scored": scored}


def _event(config: TrialConfig, progress: int, step: int, metrics: Mapping[str, float]) -> dict[str, Any]:
    now_ms = time.time_ns() // 10**6
    where = {"progress": progress, "step": step, "first_step": config.first_step}
    return {**where, "timestamp_ms": now_ms, "metrics": dict(metrics)}
