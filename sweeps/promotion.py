"""From the best trial of a sweep to a finally trained, registered model, judged on images that no trial has seen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps import work
from sweeps.cluster import checking_installation, connect, outcome
from sweeps.progress import Display
from sweeps.recorder import flat_params, now_ms, record_event, scope_tags
from sweeps.references import REFERENCE_METRICS, Tasks, joint_tasks
from sweeps.registry import Registration, champion_name, register
from sweeps.results import Trial, best_trial, searched, typed_params
from sweeps.show import result_table
from sweeps.spec import SweepSpec
from sweeps.tracking import Tracker
from trainables.config import Runtime, TrialConfig
from trainables.records import chain_metrics, known_joint_ap, known_score
from trainables.scenarios import NAMED
from trainables.store import Store
from trainables.tune import chain_task, export_task, joint_task

Events = list[dict[str, Any]]
Scores = dict[str, list[float]]
"""Metrics at the end of the chain by name, one value a seed."""

BEST = "best found"


def promote_sweep(spec: SweepSpec, which: str | None, display: Display) -> Registration:
    """Train the best configuration with every seed, score it beside its references on the test split, register it.

    Args:
        which: number or id of the trial to promote; None for the best by the spec's objective.

    Raises:
        SpecError: no finished trial to promote.
    """
    trial = best_trial(spec, searched(spec.tracking_uri, spec.name), which)
    display.say(
        f"promoting trial {trial.number}, {spec.objective} {100 * trial.ap[spec.objective]:.1f} on the tune split"
    )
    ray = connect()
    outcome(ray, checking_installation(ray))
    splits = work.prepared(spec)
    base = work.base_config(spec, splits)
    chosen = work.configured(spec, splits, spec.method, typed_params(spec, trial.params))
    configs = {**work.compared(spec, splits), work.chain_name(spec.method, spec.preset): base, BEST: chosen}
    runtime = work.runtime(spec, splits, evaluate_on="test")
    events = _train(spec, configs, runtime, display)
    rows = {"joint": _joint_row(spec, base, runtime)} if spec.joint else {}
    rows |= {name: _scores(chains) for name, chains in events.items()}
    with Tracker(spec.tracking_uri, spec.name, spec.folder) as tracker:
        registration = _record(spec, chosen, trial, events[BEST], rows, runtime, tracker)
    _print(spec, rows, registration, display)
    return registration


def _train(
    spec: SweepSpec, configs: Mapping[str, TrialConfig], runtime: Runtime, display: Display
) -> dict[str, list[Events]]:
    tasks, seeds = Tasks(connect(), spec, display), spec.promotion.seeds
    finals = {name: [work.final(spec, config, seed) for seed in seeds] for name, config in configs.items()}
    any_config = next(iter(finals.values()))[0]
    last = len(any_config.scenario.steps) - 1
    base = tasks.submit("base step", joint_task, any_config, runtime, 0)
    first = [base, *joint_tasks(tasks, spec, any_config, runtime)]
    for name, chains in finals.items():
        for seed, config in zip(seeds, chains, strict=True):
            tasks.submit(f"{name}, seed {seed}", chain_task, config, runtime, *first, optional=name != BEST)
    store = Store(runtime.store)
    under_way = {
        f"{name}, seed {config.seed}": store.partial("steps", config.step_identity(last))
        for name, chains in finals.items()
        for config in chains
    }
    results = tasks.results(under_way)
    keys = {name: [f"{name}, seed {seed}" for seed in seeds] for name in configs}
    return {name: [results[key] for key in own] for name, own in keys.items() if results.keys() >= set(own)}


def _scores(chains: Sequence[Events]) -> Scores:
    ends = [events[-1]["metrics"] for events in chains]
    return {name: [end[name] for end in ends] for name in ends[0] if all(name in end for end in ends)}


def _joint_row(spec: SweepSpec, config: TrialConfig, runtime: Runtime) -> Scores:
    """The reference of the last step as a row; it forgets nothing because it learns everything at once."""
    config = work.final(spec, config, spec.seed)
    last = len(config.scenario.steps) - 1
    joint = known_joint_ap(config, runtime)
    rows = [known_score(config.joint(step), runtime, 0) for step in range(last + 1)]
    metrics = chain_metrics(config, rows, joint)
    return {name: [metrics[name]] for name in ("ap_all", "ap_old", "ap_new")}


def _record(
    spec: SweepSpec,
    config: TrialConfig,
    trial: Trial,
    chains: Sequence[Events],
    rows: Mapping[str, Scores],
    runtime: Runtime,
    tracker: Tracker,
) -> Registration:
    """Final runs, the model, and the table, in MLflow."""
    from sweeps.report import write_report

    sweep_run = tracker.start_sweep(spec.text, {}, now_ms())
    run_ids = []
    for seed, events in zip(spec.promotion.seeds, chains, strict=True):
        final, name = work.final(spec, config, seed), f"final-{trial.number}-seed-{seed}"
        tags = {**scope_tags(final), "role": "final", "promoted_trial": trial.trial_id, "split": "test"}
        tracker.start_trial(
            name, flat_params(final), tags, now_ms(), f"final training of trial {trial.number}, seed {seed}"
        )
        for event in events:
            record_event(tracker, name, event)
        tracker.end_trial(name, "finished", now_ms())
        run_ids.append(tracker.run_id(name) or sweep_run)
    for row, scores in rows.items():
        means = {name: sum(scores[name]) / len(scores[name]) for name in REFERENCE_METRICS if name in scores}
        tracker.log_reference(f"test/{row}", means, len(spec.scenario.steps) - 1)
    checkpoint = _exported(spec, config, runtime)
    reached = rows[BEST][spec.objective]
    score = sum(reached) / len(reached)
    tags = {
        **scope_tags(config),
        "config_id": work.final(spec, config, spec.promotion.seeds[0]).config_id,
        "sweep": spec.name,
        "test_data": runtime.scored.digest,
    }
    name = champion_name(_scenario_name(spec), spec.detector)
    sign = 1 if spec.mode == "max" else -1
    registration = register(spec.tracking_uri, name, run_ids[0], checkpoint, tags, sign * score, spec.objective)
    tracker.log_text(json.dumps(rows, indent=1), "result.json")
    tracker.log_text(write_report(spec, searched(spec.tracking_uri, spec.name), rows), "report.html")
    tracker.end_sweep("finished", {f"final/{spec.objective}": score}, now_ms())
    return registration


def _exported(spec: SweepSpec, config: TrialConfig, runtime: Runtime) -> Path:
    """The exported checkpoint of the first seed: which one is said before anyone has seen the test split."""
    final = work.final(spec, config, spec.promotion.seeds[0])
    ray = connect()
    path: Path = ray.get(ray.remote(export_task).remote(final, runtime, spec.folder / "export"))
    return path


def _scenario_name(spec: SweepSpec) -> str:
    name, _, _ = spec.scenario.name.partition("@")
    return spec.scenario.name if name in NAMED else f"{spec.scenario.name}-{spec.scenario.digest[:8]}"


def _print(spec: SweepSpec, rows: Mapping[str, Scores], registration: Registration, display: Display) -> None:
    seeds = ", ".join(map(str, spec.promotion.seeds))
    title = f"{spec.scenario.name}, {spec.detector}, test split, seeds {seeds}: AP in COCO points"
    display.console.print(result_table(rows, title))
    display.say(f"model {registration.name}, version {registration.version}: {registration.decision.reason}")
    if registration.decision:
        display.say(f"load it: mlflow.artifacts.download_artifacts('models:/{registration.name}@champion')")
