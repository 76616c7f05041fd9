"""One sweep: preflight, references, search, records. Every part can be interrupted and gone on with."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.execution import class_cache

from sweeps import work
from sweeps.cluster import Releasing, connect_ray
from sweeps.costs import add_references, hours, hours_line
from sweeps.driver import only_driver
from sweeps.interruption import InterruptionError, interruptible
from sweeps.leaders import run_race
from sweeps.population import Listener, first_generation
from sweeps.preflight import Preflight
from sweeps.progress import Display, TrialCount
from sweeps.recorder import Recorder, now_ms, scope_tags
from sweeps.references import REFERENCE_METRICS, References, teacher_scores
from sweeps.results import reference_prefix
from sweeps.schedulers import rungs, scheduler_of
from sweeps.searcher import IncrementalSearch
from sweeps.snapshot import BEGIN_AGAIN, KEPT, Snapshots, put_back
from sweeps.spec import SweepSpec
from sweeps.study import check_study, study_file
from sweeps.tracking import Tracker, Verdict, tracker_of
from sweeps.warm_start import Known, known_trials
from trainables.config import Runtime, TrialConfig
from trainables.datasets import Splits
from trainables.errors import CheckpointError, PalimpsestError, SpecError, one_line
from trainables.files import write_json
from trainables.metrics import summarize
from trainables.recipes import lr_line
from trainables.records import known_joint_ap
from trainables.scenarios import Scenario
from trainables.store import Store
from trainables.tune import tune_trial

# Tune would hand these to trials, and Ray write them into its logs; nodes have their own, as references need them.
CREDENTIALS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"}


def run_sweep(spec: SweepSpec, resume: bool, display: Display) -> None:
    """Run or go on with a sweep.

    Raises:
        SpecError: the sweep exists and is not to be resumed, or was started from another file, or runs already, or asks
            for resources that no node has.
        DataError: the data cannot serve it.
        CheckpointError: what an earlier driver left cannot be gone on from.
        PalimpsestError: nodes cannot run trials, the search cannot go on, or every trial failed.
        TrackingError: MLflow does not answer.
        InterruptionError: Ctrl-C or SIGTERM; what there is is saved. A second one does not wait for that.
    """
    _claim(spec, resume)
    with only_driver(spec.name, spec.folder):
        ray = connect_ray()
        with interruptible(spec.name, display.again):
            _run(spec, ray, display)


def _run(spec: SweepSpec, ray: Any, display: Display) -> None:
    display.now("starting")
    preflight = Preflight(ray, spec)
    known = None if put_back(spec.folder) else known_trials(spec)
    splits = work.prepared(spec)
    bases = work.base_configs(spec, splits)
    config = bases[spec.method]
    scale = float(config.optim["lr_scale"])
    rate = lr_line(config.recipe, scale, config.batch_size, config.devices, config.lr_rule)
    display.say(f"trial 0: {rate}")
    references = _references(ray, spec, bases, splits, preflight, display)  # they train while MLflow opens
    with tracker_of(spec) as tracker:
        preflight.passed(display)
        record = {"identity": spec.identity, "text": spec.text, "started_in": str(Path.cwd())}
        write_json(spec.folder / "spec.json", record)
        tags = {**scope_tags(config), "method": ", ".join(spec.methods), "objective": spec.aim.line}
        tags |= {"sampler": spec.sampler, "scheduler": spec.scheduler.name or "", "protocol": spec.protocol}
        tracker.start_sweep(spec.text, tags, now_ms())
        runtime = work.runtime(spec, splits)
        bounds = _upper_bounds(spec, bases[spec.method], references, runtime, tracker, display)
        for name, scores in teacher_scores(work.teachers(spec, splits), runtime).items():
            tracker.log_reference(name, scores, 0)
        count, slots = TrialCount(spec.trials, preflight.at_once, spec.objective), preflight.at_once
        recorder = Recorder(spec, bases, tracker, display, count)
        search(spec, bases, work.runtime(spec, splits, report_at=rungs(spec)), recorder, slots, bounds, known)
        if spec.seeds > 1 and recorder.complete:
            run_race(ray, spec, recorder, runtime, tracker, display)
        finish(spec, tracker, recorder, Store(spec.store), display)


def _references(
    ray: Any,
    spec: SweepSpec,
    bases: Mapping[str, TrialConfig],
    splits: Splits,
    preflight: Preflight,
    display: Display,
) -> dict[Scenario, References]:
    """Those of each scenario, under way."""
    others, teachers, under_way = work.compared(spec, splits), work.teachers(spec, splits), {}
    for scenario in spec.scenarios:
        own, compared = (
            {name: replace(config, scenario=scenario) for name, config in configs.items()}
            for configs in (bases, others)
        )
        if spec.aim.pooled:
            display.say(f"references of {scenario.name}:")
        under_way[scenario] = References(
            ray, spec, own, compared, teachers, work.runtime(spec, splits), preflight.checks, display
        )
    return under_way


def _upper_bounds(
    spec: SweepSpec,
    config: TrialConfig,
    references: Mapping[Scenario, References],
    runtime: Runtime,
    tracker: Tracker,
    display: Display,
) -> dict[str, float]:
    """Of each scenario, once all is there and recorded, the AP of all classes of its joint reference, if it has one."""
    upper_bounds = {}
    for scenario, under_way in references.items():
        if spec.aim.pooled:
            display.say(f"{scenario.name}:")
        chains, seconds = under_way.results()
        add_references(spec, seconds)
        prefix = reference_prefix(spec.scenarios, scenario)
        for name, events in chains.items():
            for event in events:
                if "classes" in event:
                    told = {metric: event["metrics"].get(metric) for metric in REFERENCE_METRICS}
                    known = {metric: value for metric, value in told.items() if value is not None}
                    tracker.log_reference(prefix + name, known, event["step"])
        own = replace(config, scenario=scenario)
        for step, scores in enumerate(joint_scores(own, runtime) if spec.joint else ()):
            tracker.log_reference(f"{prefix}joint", scores, step)
            upper_bounds[scenario.name] = scores["ap_all"]
    return upper_bounds


def finish(spec: SweepSpec, tracker: Tracker, recorder: Recorder, store: Store, display: Display) -> None:
    """Discard the states of steps that stopped trials leave, record how the sweep ended, and say it."""
    for trial, scenario in product(recorder.ended, spec.scenarios):
        config = replace(trial.config, scenario=scenario)
        for step in range(scenario.first_step, len(scenario.steps)):
            store.discard("steps", config.step_identity(step))  # the state of a trial that was stopped
    verdicts = Counter(trial.state for trial in recorder.ended)
    counts = {f"trials_{verdict}": float(verdicts[verdict]) for verdict in ("finished", "stopped", "failed")}
    verdict: Verdict = "stopped" if not recorder.complete else "finished" if verdicts["finished"] else "failed"
    spent = hours(spec, recorder.spent_s)
    tracker.end_sweep(verdict, counts | spent, now_ms())
    tracker.log_report()
    display.say(f"{spec.name}: {', '.join(f'{number} {verdict}' for verdict, number in sorted(verdicts.items()))}")
    display.say(hours_line(spent, "gpu" if spec.resources.gpu else "core"))
    done = f"{len(recorder.ended)} of {spec.trials} trials"
    if verdicts.keys() == {"failed"} and recorder.complete:
        left = spec.trials - len(recorder.ended)
        remedy = f"--resume runs the other {left}" if left else "start it under another name"
        reasons = [f"trial {trial.number}: {trial.message}" for trial in recorder.ended]
        raise PalimpsestError(spec.name, [f"every trial failed; when that is mended, {remedy}", *reasons])
    if not recorder.complete:
        raise InterruptionError(spec.name, [f"interrupted with {done} done; go on with `{display.again}`"])
    if len(recorder.ended) < spec.trials:
        display.say(f"ended with {done}: the budget of {recorder.spending.exhausted()} is spent")


def joint_scores(config: TrialConfig, runtime: Runtime) -> list[dict[str, float]]:
    """AP of the reference of each step, all, old and new classes."""
    joint = known_joint_ap(config, runtime)
    keep = REFERENCE_METRICS[:5]
    return [{name: row[name] for name in keep} for row in summarize(joint, config.scenario.class_step)]


def _claim(spec: SweepSpec, resume: bool) -> None:
    record = spec.folder / "spec.json"
    if not record.exists():
        return
    if not resume:
        raise SpecError(spec.name, [f"exists in {spec.folder}; go on with --resume, or give the sweep another name"])
    try:
        identity = json.loads(record.read_bytes())["identity"]
    except (KeyError, TypeError, ValueError) as error:
        remedy = "delete it to go on with this file, if it is the one that the sweep was started from"
        raise CheckpointError(str(record), [f"cannot be read ({error}); {remedy}"]) from error
    if identity != spec.identity:
        raise SpecError(
            spec.name, ["was started from another sweep file; resume with that file, or give this one another name"]
        )


def search(
    spec: SweepSpec,
    bases: Mapping[str, TrialConfig],
    runtime: Runtime,
    recorder: Recorder,
    slots: int,
    bounds: Mapping[str, float],
    known: Known | None,
) -> None:
    """Search from a snapshot on or, where earlier trials are known (which may be none), from the beginning."""
    class_cache.ENV_VARS_TO_PROPAGATE -= CREDENTIALS
    copied = spec.scheduler.name == "pbt"
    trial = tune.with_parameters(
        tune_trial, bases=bases, runtime=runtime, aim=spec.aim, folder=spec.folder / "trials", copied=copied,
        scenarios=spec.scenarios if spec.aim.pooled else (),
    )  # fmt: skip
    trainable = tune.with_resources(trial, spec.resources.of_process)
    experiment = spec.folder / "tune"
    if known is None:
        tuner = _restored(spec, trainable)
        # Tune would go on with the listeners that it pickled at the start; ours speak to this driver's records.
        listeners = [*_listeners(spec, recorder), *([Listener(IncrementalSearch(spec))] if copied else [])]
        tuner._local_tuner._run_config.callbacks = listeners
        tuner._local_tuner._run_config.failure_config.max_failures = spec.max_failures
    else:
        shutil.rmtree(experiment, ignore_errors=True)
        for file in (study_file(spec.folder), spec.folder / KEPT):
            file.unlink(missing_ok=True)
        search, scheduler = IncrementalSearch(spec, known), scheduler_of(spec, bounds)
        tuner = _fresh(spec, trainable, search, scheduler, recorder, slots)
    try:
        tuner.fit()
    except CheckpointError:
        raise
    except (OSError, tune.TuneError) as error:
        remedy = f"when that is mended, go on with `{recorder.display.again}`"
        raise PalimpsestError(spec.name, [f"the search cannot go on ({one_line(error)}); {remedy}"]) from error


def _listeners(spec: SweepSpec, recorder: Recorder) -> list[tune.Callback]:
    releasing = [Releasing(spec.folder / "trials")] if spec.devices > 1 else []
    return [recorder, Snapshots(spec.folder), *releasing]


def _restored(spec: SweepSpec, trainable: Any) -> tune.Tuner:
    """The search as Tune's last snapshot has it.

    Raises:
        CheckpointError: a file of it is broken.
    """
    experiment = spec.folder / "tune"
    try:
        check_study(spec.folder)
        return tune.Tuner.restore(str(experiment), trainable=trainable, resume_unfinished=True)
    except CheckpointError:
        raise
    except Exception as error:
        problem = f"cannot be gone on with ({one_line(error)}); {BEGIN_AGAIN}"
        raise CheckpointError(str(experiment), [problem]) from error


def _fresh(
    spec: SweepSpec, trainable: Any, search: IncrementalSearch, scheduler: Any, recorder: Recorder, slots: int
) -> tune.Tuner:
    space: dict[str, Any] = {}
    proposing, listeners = search, _listeners(spec, recorder)
    if spec.scheduler.name == "pbt":
        proposing, space = first_generation(spec, search)
        listeners.append(Listener(search))
    return tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(
            search_alg=proposing,
            scheduler=scheduler,
            num_samples=spec.trials,
            max_concurrent_trials=None if space else slots,
            reuse_actors=spec.devices == 1,  # Ray Train would end too slowly for Tune
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(spec.folder),
            callbacks=listeners,
            failure_config=tune.FailureConfig(max_failures=spec.max_failures),
            verbose=0,
        ),
    )
