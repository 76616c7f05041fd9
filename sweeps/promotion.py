"""From the best trial of a sweep to a finally trained, registered model, judged on images that no trial has seen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps import work
from sweeps.cluster import connect_ray
from sweeps.driver import only_driver
from sweeps.interruption import interruptible
from sweeps.leaders import joined
from sweeps.model_page import provenance
from sweeps.preflight import Preflight
from sweeps.progress import Display, shown
from sweeps.recorder import flat_params, now_ms, record_event, scope_tags
from sweeps.references import REFERENCE_METRICS, Tasks, base_tasks, joint_tasks, teacher_scores
from sweeps.registry import Candidate, Registration, champion_name, register
from sweeps.results import Trial, best_trial, reference_prefix, searched, typed_params
from sweeps.runs import NOTE
from sweeps.show import result_table
from sweeps.spec import SweepSpec
from sweeps.tracking import Tracker, tracker_of
from trainables.config import Runtime, TrialConfig, under_schedule
from trainables.datasets import Splits
from trainables.objectives import trained
from trainables.records import chain_metrics, known_joint_ap, known_score, partial_step
from trainables.scenarios import NAMED, Scenario
from trainables.tune import chain_task, export_task

Events = list[dict[str, Any]]
Scores = dict[str, list[float]]
"""Metrics at the end of the chain by name, one value a seed."""

BEST = "best found"


def promote_sweep(spec: SweepSpec, which: str | None, display: Display) -> list[Registration]:
    """Train the best configuration with every seed, score it beside its references on the test split, register it; on
    each scenario that the sweep reports on. Where methods are searched alike, the best of each is trained and scored.

    Args:
        which: number or id of the trial to promote; None for the best by the spec's objective.

    Raises:
        SpecError: no finished trial to promote, or another process runs the sweep.
        InterruptionError: Ctrl-C or SIGTERM.
    """
    with only_driver(spec.name, spec.folder):
        connect_ray()
        with interruptible(spec.name, display.again):
            return _promote(spec, which, display)


def _promote(spec: SweepSpec, which: str | None, display: Display) -> list[Registration]:
    found = searched(spec.tracking_uri, spec.name)
    trial = best_trial(spec, found, which)
    values = zip(spec.aim.objectives, trial.values(spec.aim) or (), strict=True)
    told = ", ".join(f"{one.name} {shown(one.metric, value)}" for one, value in values)
    display.say(f"promoting trial {trial.number}, {told} on the tune split")
    Preflight(connect_ray(), spec).passed(display)
    splits = work.prepared(spec)
    bases = work.base_configs(spec, splits)
    defaults = {work.base_name(spec, method): config for method, config in bases.items()}
    alone = [_configured(spec, splits, one) for one in _best_of_methods(spec, found)] if which is None else []
    chosen = _configured(spec, splits, trial)
    others = {f"{config.method} found": config for config in alone if config != chosen}
    best = f"{trial.method} {BEST}" if len(spec.methods) > 1 else BEST
    configs = {**work.compared(spec, splits), **defaults, **others, best: chosen}
    runtime = work.runtime(spec, splits, evaluate_on="test")
    teachers = work.teachers(spec, splits)
    events = {one: _train(spec, configs, best, teachers, runtime, one, display) for one in spec.report_scenarios}
    above = {
        name: {metric: [value] for metric, value in scores.items()}
        for name, scores in teacher_scores(teachers, runtime).items()
    }
    rows = {one: above | _rows(spec, bases[spec.method], own, runtime, one) for one, own in events.items()}
    with tracker_of(spec) as tracker:
        chains = {one: own[best] for one, own in events.items()}
        registrations = _record(spec, chosen, trial, chains, rows, runtime, tracker)
    for scenario, registration in zip(rows, registrations, strict=True):
        _print(spec, scenario, rows[scenario], registration, display)
    return registrations


def _configured(spec: SweepSpec, splits: Splits, trial: Trial) -> TrialConfig:
    config = work.configured(spec, splits, trial.method, typed_params(spec, trial.method, trial.params))
    return under_schedule(config, trial.schedule) if trial.schedule else config


def _best_of_methods(spec: SweepSpec, found: Sequence[Trial]) -> list[Trial]:
    """The best trial of each method that has a finished one, where methods are searched alike."""
    if not spec.each_method:
        return []
    of_methods = [[trial for trial in found if trial.method == method] for method in spec.methods]
    return [
        best_trial(spec, own)
        for own in of_methods
        if any(trial.holds(spec.aim) and trial.values(spec.aim) for trial in own)
    ]


def _train(
    spec: SweepSpec,
    configs: Mapping[str, TrialConfig],
    best: str,
    teachers: Mapping[str, TrialConfig],
    runtime: Runtime,
    scenario: Scenario,
    display: Display,
) -> dict[str, list[Events]]:
    """The chains of each row, one a seed; a row but the `best` may fail and is left out."""
    tasks, seeds = Tasks(connect_ray(), spec, display), spec.promotion.seeds
    finals = {name: [work.final(spec, config, seed, scenario) for seed in seeds] for name, config in configs.items()}
    any_config = next(iter(finals.values()))[0]
    base = base_tasks(tasks, any_config, teachers, runtime)
    first = [base, *joint_tasks(tasks, spec, any_config, runtime)]
    for name, chains in finals.items():
        for seed, config in zip(seeds, chains, strict=True):
            tasks.submit(f"{name}, seed {seed}", chain_task, config, runtime, *first, optional=name != best)
    results = tasks.results(
        {
            f"{name}, seed {config.seed}": partial_step(config, runtime)
            for name, chains in finals.items()
            for config in chains
        }
    )
    keys = {name: [f"{name}, seed {seed}" for seed in seeds] for name in configs}
    return {name: [results[key] for key in own] for name, own in keys.items() if results.keys() >= set(own)}


def _rows(
    spec: SweepSpec, base: TrialConfig, events: Mapping[str, list[Events]], runtime: Runtime, scenario: Scenario
) -> dict[str, Scores]:
    """The table of one scenario."""
    joint = {"joint": _joint_row(spec, base, runtime, scenario)} if spec.joint else {}
    return joint | {name: _scores(chains) for name, chains in events.items()}


def _scores(chains: Sequence[Events]) -> Scores:
    ends = [events[-1]["metrics"] | _costs(events) for events in chains]
    return {name: [end[name] for end in ends] for name in ends[0] if all(name in end for end in ends)}


def _costs(events: Events) -> dict[str, float]:
    """Seconds of training, over the trained steps; and what a method holds beside its student at the last of them."""
    facts = [event["facts"] for event in events if trained(event) and "facts" in event]
    return {
        "time_train_s": sum(one["time_train_s"] + one.get("time_saved_steps_s", 0.0) for one in facts),
        "extra_memory_mb": facts[-1]["extra_memory_mb"],
    }


def _joint_row(spec: SweepSpec, config: TrialConfig, runtime: Runtime, scenario: Scenario) -> Scores:
    """The reference of the last step as a row; it forgets nothing because it learns everything at once."""
    config = work.final(spec, config, spec.seed, scenario)
    last = len(config.scenario.steps) - 1
    joint = known_joint_ap(config, runtime)
    rows = [known_score(config.joint(step), runtime, 0) for step in range(last + 1)]
    metrics = chain_metrics(config, rows, joint)
    return {name: [metrics[name]] for name in ("ap_all", "ap_old", "ap_new")}


def _record(
    spec: SweepSpec,
    config: TrialConfig,
    trial: Trial,
    chains: Mapping[Scenario, Sequence[Events]],
    rows: Mapping[Scenario, Mapping[str, Scores]],
    runtime: Runtime,
    tracker: Tracker,
) -> list[Registration]:
    """Final runs, the models, and the tables, in MLflow."""
    registrations = []
    for scenario, own in chains.items():
        run_ids = _final_runs(spec, config, trial, scenario, own, tracker)
        for row, scores in rows[scenario].items():
            means = {name: sum(scores[name]) / len(scores[name]) for name in REFERENCE_METRICS if name in scores}
            name = f"test/{reference_prefix(spec.report_scenarios, scenario)}{row}"
            tracker.log_reference(name, means, len(scenario.steps) - 1)
        # The model of the first seed: which one is said before anyone has seen the test split.
        final = work.final(spec, config, spec.promotion.seeds[0], scenario)
        registrations.append(_registered(spec, trial, final, rows[scenario], own, run_ids[0], runtime))
    together = [joined(list(chains), one) for one in zip(*chains.values(), strict=True)]
    score = sum(spec.aim.values(events)[0] for events in together) / len(together)
    tracker.log_text(json.dumps({one.name: own for one, own in rows.items()}, indent=1), "result.json")
    tracker.log_sweep({f"final/{spec.objective.name}": score}, now_ms())
    tracker.log_report()
    return registrations


def _final_runs(
    spec: SweepSpec,
    config: TrialConfig,
    trial: Trial,
    scenario: Scenario,
    chains: Sequence[Events],
    tracker: Tracker,
) -> list[str]:
    """The runs of the final training on one scenario, one a seed."""
    run_ids = []
    where = f" on {scenario.name}" if len(spec.report_scenarios) > 1 else ""
    for seed, events in zip(spec.promotion.seeds, chains, strict=True):
        final = work.final(spec, config, seed, scenario)
        name = f"final-{final.config_id}"  # a number is another configuration's once a search began again
        tags = {**scope_tags(final), "role": "final", "promoted_trial": trial.trial_id, "split": "test"}
        told = f"final training of trial {trial.number}{where}, seed {seed}"
        tags[NOTE] = f"Trial {trial.number}, trained once more and scored on the test split, which no trial has seen."
        tracker.start_trial(name, flat_params(final), tags, now_ms(), told)
        for event in events:
            record_event(tracker, name, event)
        tracker.end_trial(name, "finished", now_ms())
        run_ids.append(tracker.run_id(name) or "")
    return run_ids


def _registered(
    spec: SweepSpec,
    trial: Trial,
    final: TrialConfig,
    rows: Mapping[str, Scores],
    chains: Sequence[Events],
    run_id: str,
    runtime: Runtime,
) -> Registration:
    ray = connect_ray()
    folder = spec.folder / "export" / final.scenario.digest[:8]
    checkpoint: Path = ray.get(ray.remote(export_task).remote(final, runtime, folder))
    tags = {
        **scope_tags(final),
        "config_id": final.config_id,
        "sweep": spec.name,
        "test_data": runtime.scored.digest,
    }
    own = {f"this version, seed {final.seed}": _scores(chains[:1])}
    candidate = Candidate(
        name=champion_name(_scenario_name(final.scenario), spec.detector),
        run_id=run_id,
        checkpoint=checkpoint,
        tags=tags,
        facts=provenance(spec, trial, final, runtime.splits),
        rows={**own, **rows},
        objective=spec.objective,
        score=sum(spec.objective.value(events) for events in chains) / len(chains),
    )
    return register(spec.tracking_uri, candidate)


def _scenario_name(scenario: Scenario) -> str:
    name, _, _ = scenario.name.partition("@")
    return scenario.name if name in NAMED else f"{scenario.name}-{scenario.digest[:8]}"


def _print(
    spec: SweepSpec, scenario: Scenario, rows: Mapping[str, Scores], registration: Registration, display: Display
) -> None:
    seeds = ", ".join(map(str, spec.promotion.seeds))
    title = f"{scenario.name}, {spec.detector}, test split, seeds {seeds}: AP in COCO points"
    display.console.print(result_table(rows, title))
    display.say(f"model {registration.name}, version {registration.version}: {registration.decision.reason}")
    if registration.decision:
        display.say(f"load it: mlflow.pyfunc.load_model('models:/{registration.name}@champion')")
