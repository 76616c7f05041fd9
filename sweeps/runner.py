"""One sweep: preflight, references, search, records. Every part can be interrupted and gone on with."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from sweeps import work
from sweeps.cluster import checking_installation, connect, outcome
from sweeps.connection import TrackingError
from sweeps.costs import add_references, hours, hours_line
from sweeps.progress import Display, TrialCount
from sweeps.recorder import Recorder, now_ms, scope_tags
from sweeps.references import REFERENCE_METRICS, build_references
from sweeps.report import write_report
from sweeps.results import searched
from sweeps.searcher import IncrementalSearch
from sweeps.spec import SweepSpec
from sweeps.study import study_file
from sweeps.tracking import Tracker, Verdict
from trainables.config import Runtime, TrialConfig
from trainables.datasets import Splits
from trainables.errors import CheckpointError, PalimpsestError, SpecError
from trainables.files import write_json
from trainables.metrics import summarize
from trainables.records import known_joint_ap
from trainables.store import Store
from trainables.tune import OBJECTIVE, PROGRESS, tune_trial


class InterruptionError(PalimpsestError):
    """A sweep ended before its trials did, by a person's wish."""


def run_sweep(spec: SweepSpec, resume: bool, display: Display) -> None:
    """Run or go on with a sweep.

    Raises:
        SpecError: the sweep exists and is not to be resumed, or was started from another file, or asks for resources
            that no node has.
        DataError: the data cannot serve it.
        PalimpsestError: mmcv's operations do not work where trials run.
        TrackingError: MLflow does not answer.
        InterruptionError: Ctrl-C or SIGINT; what there is is saved.
    """
    _claim(spec, resume)
    display.now("starting")
    ray = connect()
    installation = checking_installation(ray)
    _preflight(spec, ray)
    splits = work.prepared(spec)
    config = work.base_config(spec, splits)
    with Tracker(spec.tracking_uri, spec.name, spec.folder) as tracker:
        outcome(ray, installation)
        record = {"identity": spec.identity, "text": spec.text, "started_in": str(Path.cwd())}
        write_json(spec.folder / "spec.json", record)
        tags = {**scope_tags(config), "objective": spec.objective, "sampler": "tpe", "scheduler": spec.scheduler.name}
        tracker.start_sweep(spec.text, tags, now_ms())
        _references(spec, config, splits, tracker, display, ray)
        at_once = _at_once(spec, ray)
        recorder = Recorder(spec, config, tracker, display, TrialCount(spec.trials, at_once, spec.mode))
        _search(spec, config, work.runtime(spec, splits, report_at=rungs(spec)), recorder, at_once)
        _finish(spec, tracker, recorder, Store(spec.store), display)


def _references(
    spec: SweepSpec, config: TrialConfig, splits: Splits, tracker: Tracker, display: Display, ray: Any
) -> None:
    runtime = work.runtime(spec, splits)
    chains, seconds = build_references(ray, spec, config, work.compared(spec, splits), runtime, display)
    add_references(spec, seconds)
    for name, events in chains.items():
        for event in events:
            if "classes" in event:
                told = {metric: event["metrics"][metric] for metric in REFERENCE_METRICS if metric in event["metrics"]}
                tracker.log_reference(name, told, event["step"])
    for step, scores in enumerate(joint_scores(config, runtime) if spec.joint else ()):
        tracker.log_reference("joint", scores, step)


def _finish(spec: SweepSpec, tracker: Tracker, recorder: Recorder, store: Store, display: Display) -> None:
    for config, _ in recorder.ended:
        for step in range(1, len(config.scenario.steps)):
            store.discard("steps", config.step_identity(step))  # the state of a trial that was stopped
    verdicts = Counter(verdict for _, verdict in recorder.ended)
    counts = {f"trials_{verdict}": float(verdicts[verdict]) for verdict in ("finished", "stopped", "failed")}
    interrupted = len(recorder.ended) < spec.trials
    verdict: Verdict = "stopped" if interrupted else "finished" if verdicts["finished"] else "failed"
    spent = hours(spec, recorder.spent_s)
    tracker.end_sweep(verdict, counts | spent, now_ms())
    try:
        tracker.log_text(write_report(spec, searched(spec.tracking_uri, spec.name)), "report.html")
    except TrackingError as error:
        display.say(f"no report: {error}")
    display.say(f"{spec.name}: {', '.join(f'{number} {verdict}' for verdict, number in sorted(verdicts.items()))}")
    display.say(hours_line(spent, "gpu" if spec.resources.gpu else "core"))
    if interrupted:
        done = f"{len(recorder.ended)} of {spec.trials} trials done; go on with `sweeps run FILE --resume`"
        raise InterruptionError(spec.name, [f"interrupted with {done}"])


def joint_scores(config: TrialConfig, runtime: Runtime) -> list[dict[str, float]]:
    """AP of the reference of each step, all, old and new classes."""
    joint = known_joint_ap(config, runtime)
    keep = REFERENCE_METRICS[:5]
    return [{name: row[name] for name in keep} for row in summarize(joint, config.scenario.class_step)]


def rungs(spec: SweepSpec) -> tuple[int, ...]:
    """Values of the clock at which the scheduler compares trials: `grace * reduction_factor ** k` before the end.

    By default the grace lasts until a trial has finished its first increment.
    """
    if spec.scheduler.name == "none":
        return ()
    value, found = spec.scheduler.grace or spec.epochs, []
    while value < spec.max_progress:
        found.append(value)
        value *= spec.scheduler.reduction_factor
    return tuple(found)


def _claim(spec: SweepSpec, resume: bool) -> None:
    record = spec.folder / "spec.json"
    if not record.exists():
        return
    if not resume:
        raise SpecError(spec.name, [f"exists in {spec.folder}; go on with --resume, or give the sweep another name"])
    if json.loads(record.read_text())["identity"] != spec.identity:
        raise SpecError(
            spec.name, ["was started from another sweep file; resume with that file, or give this one another name"]
        )


def _preflight(spec: SweepSpec, ray: Any) -> None:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    need = {"CPU": spec.resources.cpu, "GPU": spec.resources.gpu}
    if not any(all(node.get(kind, 0) >= amount for kind, amount in need.items()) for node in nodes):
        there = "; ".join(f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU" for node in nodes)
        raise SpecError(
            "resources", [f"a trial asks for {need['CPU']} CPU, {need['GPU']:g} GPU, but the nodes have {there}"]
        )


def _at_once(spec: SweepSpec, ray: Any) -> int:
    total = ray.cluster_resources()
    fits = [total.get("CPU", 0) // spec.resources.cpu]
    if spec.resources.gpu:
        fits.append(total.get("GPU", 0) // spec.resources.gpu)
    return int(min([*fits, spec.max_concurrent or spec.trials, spec.trials]))


def _search(spec: SweepSpec, config: TrialConfig, runtime: Runtime, recorder: Recorder, at_once: int) -> None:
    trial = tune.with_parameters(
        tune_trial, base=config, runtime=runtime, objective=spec.objective, folder=spec.folder / "trials"
    )
    trainable = tune.with_resources(trial, {"CPU": spec.resources.cpu, "GPU": spec.resources.gpu})
    experiment = spec.folder / "tune"
    if restorable(experiment):
        tuner = tune.Tuner.restore(str(experiment), trainable=trainable, resume_unfinished=True)
        # Tune would go on with the listener that it pickled at the start; ours speaks to this driver's records.
        tuner._local_tuner._run_config.callbacks = [recorder]
    else:
        shutil.rmtree(experiment, ignore_errors=True)
        study_file(spec.folder).unlink(missing_ok=True)
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=IncrementalSearch(spec),
                scheduler=_scheduler(spec, OBJECTIVE, PROGRESS),
                num_samples=spec.trials,
                max_concurrent_trials=at_once,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(spec.folder),
                callbacks=[recorder],
                failure_config=tune.FailureConfig(max_failures=2),
                verbose=0,
            ),
        )
    tuner.fit()


def _scheduler(spec: SweepSpec, metric: str, clock: str) -> Any:
    if spec.scheduler.name == "none" or not rungs(spec):
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr=clock,
        metric=metric,
        mode=spec.mode,
        max_t=spec.max_progress,
        grace_period=rungs(spec)[0],
        reduction_factor=spec.scheduler.reduction_factor,
    )


def restorable(experiment: Path) -> bool:
    """Whether Tune has a state to go on from; a driver killed in the first seconds of a search leaves none.

    Raises:
        CheckpointError: the newest state is torn: from it Tune would start afresh without a word.
    """
    newest = max(experiment.glob("experiment_state-*.json"), default=None)
    if newest is None or not tune.Tuner.can_restore(str(experiment)):
        return False
    try:
        json.loads(newest.read_text())
    except ValueError as error:
        raise CheckpointError(str(newest), [f"is torn ({error}); delete it to go on from the state before"]) from error
    return True
