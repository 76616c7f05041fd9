"""MLflow: one run for the sweep, under it one for each trial, under each trial one for each incremental step.

Runs are addressed by explicit ids. Every event carries its own time and every run is found by its tags before it is
created, so writing an event again (a restored sweep, a repaired outage) changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, zip_longest
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal, TypeVar

from search_spaces.distributions import Scalar
from sweeps.connection import KnownRun, TrackingError, answered, connect, database_file, known_runs
from sweeps.step_artifacts import log_pictures, log_tables
from sweeps.step_figure import CURVES
from sweeps.views import VIEW_TAGS, links
from trainables.environment import package_versions
from trainables.errors import one_line

Verdict = Literal["finished", "stopped", "failed"]

STATUS: dict[Verdict, str] = {"finished": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}
SCOPE_TAGS = ("scenario", "detector", "method")  # a step has those of its trial

# MLflow takes 1000 metrics, 100 params and 100 tags in a batch, 1000 entries and 1 MB in all.
METRICS_PER_BATCH, TEXTS_PER_BATCH = 800, 50
PARAM_CHARS, TAG_CHARS = 6000, 8000
NAME_CHARS = 100  # of a run: what a table of runs can show

NOTE = "mlflow.note.content"
"""The tag that MLflow shows as the description of a run or an experiment."""

_T = TypeVar("_T")


class Runs:
    """The runs of one sweep in MLflow. Each method from `start_sweep` to `end_sweep` writes one event, at once.

    Call `start_sweep` first and `start_trial` before a trial's other events. Times are milliseconds since 1970. A
    sweep, trial or step that MLflow already knows is continued, whatever state a killed driver left it in.

    Args:
        uri: of a database or a server, see `sweeps.connection.connect`. A SQLite file is created where it is missing,
            and the artifacts of its sweeps go into `mlartifacts` beside it; a server decides itself.
        sweep: the name of the sweep and of its experiment.
        store: that has the pictures of what steps found; without one there are none.

    Raises:
        TrackingError: MLflow does not answer, or `uri` or `sweep` cannot be used.
    """

    def __init__(self, uri: str, sweep: str, store: Path | str | None = None) -> None:
        self.uri, self.sweep, self._store = uri, sweep, store
        self._database = database_file(uri)
        if folder := self._database and self._database.parent:
            answered(uri, lambda: folder.mkdir(parents=True, exist_ok=True))
        self._client = connect(uri)
        self._known: dict[tuple[str, str, str], KnownRun] = {}
        self.experiment_id = answered(uri, self._open_experiment)
        answered(uri, self.load)

    def load(self) -> None:
        """Learn what MLflow has: after a failure a run may be there whose creation seemed to fail."""
        known: dict[tuple[str, str, str], KnownRun] = {}
        for run in known_runs(self._client, self.experiment_id):
            known.setdefault(run.key, run)
        self._known = known

    def run_id(self, trial_id: str = "") -> str | None:
        """The run of a trial, or of the sweep; None if MLflow has none."""
        run = self._known.get(("trial" if trial_id else "sweep", trial_id, ""))
        return run.run_id if run else None

    def start_sweep(self, spec_yaml: str, tags: Mapping[str, Scalar], timestamp_ms: int) -> None:
        """Open the run of the sweep; it holds the spec and the versions of the packages. Save a view of its trials."""
        for name, value in {**VIEW_TAGS, NOTE: links(self.experiment_id)}.items():
            self._client.set_experiment_tag(self.experiment_id, name, value)
        run = self._open(("sweep", "", ""), self.sweep, timestamp_ms, tags)
        self._batch(run, tags={f"version/{name}": version for name, version in package_versions().items()})
        self._client.log_text(run.run_id, spec_yaml, "spec.yaml")

    def start_trial(
        self,
        trial_id: str,
        params: Mapping[str, Scalar],
        tags: Mapping[str, Scalar],
        timestamp_ms: int,
        name: str = "",
    ) -> None:
        """Open a trial's run, called `name`. `params` (flat) are written once; a param cannot change."""
        run = self._open(("trial", trial_id, ""), _shortened(name or trial_id), timestamp_ms, tags)
        self._batch(run, params={name: value for name, value in params.items() if name not in run.params})

    def log_epoch(self, trial_id: str, metrics: Mapping[str, float], progress: int, timestamp_ms: int) -> None:
        """Add one point to each `epoch/...` curve of a trial.

        An epoch trained again after a restore is not written again: a trial is a function of its configuration.
        """
        trial = self._run("trial", trial_id)
        if progress <= int(trial.tags.get("progress", -1)):
            return
        curves = {f"epoch/{name}": value for name, value in metrics.items()}
        self._batch(trial, curves, timestamp_ms, progress, tags={"progress": progress})

    def log_step(
        self,
        trial_id: str,
        step: int,
        metrics: Mapping[str, float],
        timestamp_ms: int,
        class_table: Sequence[Mapping[str, Scalar | None]],
        ap_matrix: Mapping[str, Any],
        scenario: str = "",
        scored: Mapping[str, Any] | None = None,
    ) -> None:
        """Record a finished incremental step on its own run and on its trial's.

        Args:
            trial_id: of a trial that was started.
            step: index of the step, from 0; on the trial's run it is MLflow's `step`.
            metrics: by name; those that are not finite are left out.
            timestamp_ms: when the step ended.
            class_table: one row a class, for `classes.csv`.
            ap_matrix: `classes` and `ap`, a row a step, for `ap_matrix.json`; nan becomes null.
            scenario: of several that the trial runs; what each brought is then on the runs of its steps alone.
            scored: of a step that the trial itself trained, what its score in the store depends on: such a step has
                pictures.
        """
        trial = self._run("trial", trial_id)
        scope = {name: trial.tags[name] for name in SCOPE_TAGS if name in trial.tags}
        key = ("step", trial_id, _step_key(scenario, step))
        scope |= {"scenario": scenario} if scenario else {}
        learnt = ", ".join(str(row["class"]) for row in class_table if row["step"] == step + 1)
        name = _shortened(f"{scenario}{', ' if scenario else ''}step {step + 1}: {learnt}")
        run = self._known.get(key) or self._open(key, name, timestamp_ms, scope)
        at_ms = timestamp_ms if run.status == "FINISHED" else run.start_ms
        news = {name: value for name, value in _finite(metrics).items() if run.metrics.get(name) != value}
        if run.status == "FINISHED" and not news:
            return
        if not scenario:
            self._batch(trial, news, at_ms, step)
        self._batch(run, news, at_ms, step)
        log_tables(self._client, run.run_id, class_table, ap_matrix)
        if scored is not None:
            curves = self._curves(trial_id, step, scenario)
            log_pictures(self._client, run.run_id, ap_matrix, curves, self._store, scored)
        self._close(run, "FINISHED", at_ms)

    def log_trial(
        self, trial_id: str, metrics: Mapping[str, float], tags: Mapping[str, Scalar], timestamp_ms: int
    ) -> None:
        """Metrics and tags of a trial as a whole."""
        self._batch(self._run("trial", trial_id), metrics, timestamp_ms, tags=tags)

    def end_trial(self, trial_id: str, verdict: Verdict, timestamp_ms: int, message: str = "") -> None:
        """Close a trial's run with our own `verdict`; to say it again changes nothing."""
        self._end(self._run("trial", trial_id), verdict, timestamp_ms, message)

    def keep_trials(self, trial_ids: Sequence[str]) -> None:
        """Delete the runs of all other trials of the search.

        A driver that was killed may have started some that Tune's last snapshot does not know: others take their place.
        """
        trials = {key[1] for key, run in self._known.items() if run.tags.get("role") == "search"}
        for key in [key for key in self._known if key[1] in trials.difference(trial_ids)]:
            self._client.delete_run(self._known.pop(key).run_id)

    def log_reference(self, name: str, scores: Mapping[str, float], step: int) -> None:
        """Record the scores of a reference (`joint`, `finetune`, ...) after a step on the sweep's run."""
        sweep = self._run("sweep")
        rows = {f"reference/{name}/{metric}": score for metric, score in scores.items()}
        self._batch(sweep, rows, sweep.start_ms, step)

    def log_text(self, text: str, name: str) -> None:
        """Keep `text` as the file `name` on the sweep's run."""
        self._client.log_text(self._run("sweep").run_id, text, name)

    def log_sweep(self, metrics: Mapping[str, float], timestamp_ms: int) -> None:
        """Metrics of the sweep as a whole, whether it is under way, ended or interrupted."""
        self._batch(self._run("sweep"), metrics, timestamp_ms)

    def end_sweep(self, verdict: Verdict, metrics: Mapping[str, float], timestamp_ms: int) -> None:
        """Close the sweep's run and every run still open under it.

        Args:
            verdict: a trial still open is closed as `stopped` in a stopped sweep, else as `failed`.
            metrics: of the sweep: hours, counts of trials by state.
            timestamp_ms: when the sweep ended.
        """
        for run in list(self._known.values()):
            if run.key[0] == "trial" and run.status == "RUNNING":
                left: Verdict = "stopped" if verdict == "stopped" else "failed"
                self._end(run, left, timestamp_ms, "open when the sweep ended")
        self.log_sweep(metrics, timestamp_ms)
        self._end(self._run("sweep"), verdict, timestamp_ms, "")

    def log_report(self) -> None:
        """Describe the sweep's run by what MLflow holds by now, and keep a report of it there, see `sweeps.report`.

        Raises:
            ValueError: there can be none, however well MLflow is.
        """
        # plotly; the driver, which imports this file as well, needs none
        from sweeps.description import description
        from sweeps.findings import read_findings
        from sweeps.report import page

        try:
            found = read_findings(self.uri, self.sweep)
            report, note = page(found), f"{links(self.experiment_id)}\n\n{description(found)}"
        except TrackingError:
            raise
        except Exception as error:
            raise ValueError(f"no report: {one_line(error)}") from error
        self.log_text(report, "report.html")
        self._batch(self._run("sweep"), tags={NOTE: note})

    def _curves(self, trial_id: str, step: int, scenario: str) -> dict[str, list[float]]:
        """The metrics that are drawn against the step, after each step up to `step`."""
        keys = [("step", trial_id, _step_key(scenario, number)) for number in range(step + 1)]
        steps = [self._known[key].metrics if key in self._known else {} for key in keys]
        return {name: [metrics.get(name, math.nan) for metrics in steps] for name in CURVES}

    def _open_experiment(self) -> str:
        experiment = self._client.get_experiment_by_name(self.sweep)
        if experiment is None:
            artifacts = (self._database.parent / "mlartifacts").as_uri() if self._database else None
            return str(self._client.create_experiment(self.sweep, artifact_location=artifacts))
        if experiment.lifecycle_stage != "active":
            raise TrackingError("tracking", [f"experiment {self.sweep!r} is deleted; restore it or rename the sweep"])
        return str(experiment.experiment_id)

    def _run(self, level: str, trial_id: str = "") -> KnownRun:
        try:
            return self._known[level, trial_id, ""]
        except KeyError:
            raise LookupError(f"{level} {trial_id!r} of sweep {self.sweep!r} must be started first") from None

    def _open(self, key: tuple[str, str, str], name: str, start_ms: int, tags: Mapping[str, Scalar]) -> KnownRun:
        level, trial_id, step = key
        if run := self._known.get(key):
            if run.status != "RUNNING":
                self._client.update_run(run.run_id, status="RUNNING")
                run.status = "RUNNING"
            for tag in run.tags.keys() & {"verdict", "message"}:
                self._client.delete_tag(run.run_id, tag)
                del run.tags[tag]
            return run
        placed = {"level": level, "sweep": self.sweep, "trial_id": trial_id, "step": step}
        if level != "sweep":
            parent = self._run("sweep") if level == "trial" else self._run("trial", trial_id)
            placed["mlflow.parentRunId"] = parent.run_id
        texts = _texts({**tags, **placed}, TAG_CHARS)
        created = self._client.create_run(self.experiment_id, start_ms, {k: v for k, v in texts.items() if v}, name)
        self._known[key] = KnownRun(created)
        return self._known[key]

    def _batch(
        self,
        run: KnownRun,
        metrics: Mapping[str, float] | None = None,
        timestamp_ms: int = 0,
        step: int = 0,
        *,
        params: Mapping[str, Scalar] | None = None,
        tags: Mapping[str, Scalar] | None = None,
    ) -> None:
        """Write to a run in as few requests as MLflow's limits allow, and remember what was written."""
        from mlflow.entities import Metric, Param, RunTag

        numbers = _finite(metrics or {})
        given, notes = _texts(params or {}, PARAM_CHARS), _texts(tags or {}, TAG_CHARS)
        for some_metrics, some_params, some_tags in zip_longest(
            _chunks([Metric(name, value, timestamp_ms, step) for name, value in numbers.items()], METRICS_PER_BATCH),
            _chunks([Param(name, value) for name, value in given.items()], TEXTS_PER_BATCH),
            _chunks([RunTag(name, value) for name, value in notes.items()], TEXTS_PER_BATCH),
            fillvalue=(),
        ):
            self._client.log_batch(run.run_id, some_metrics, some_params, some_tags)
        run.metrics.update(numbers)
        run.params.update(given)
        run.tags.update(notes)

    def _end(self, run: KnownRun, verdict: Verdict, timestamp_ms: int, message: str) -> None:
        for step in self._steps(run):
            if step.status == "RUNNING":
                self._close(step, "FAILED", timestamp_ms)
        if run.status != STATUS[verdict] or run.tags.get("verdict") != verdict:
            self._batch(run, tags={"verdict": verdict, **({"message": message} if message else {})})
            self._close(run, STATUS[verdict], timestamp_ms)

    def _steps(self, trial: KnownRun) -> Iterator[KnownRun]:
        if "pooled" in trial.tags:  # its steps are named by their scenarios as well
            yield from (run for key, run in self._known.items() if key[:2] == ("step", trial.key[1]))
            return
        for index in count():
            step = self._known.get(("step", trial.key[1], str(index)))
            if trial.key[0] != "trial" or step is None:
                return
            yield step

    def _close(self, run: KnownRun, status: str, end_ms: int) -> None:
        self._client.set_terminated(run.run_id, status, end_ms)
        run.status = status


def _step_key(scenario: str, step: int) -> str:
    return f"{scenario}:{step}" if scenario else str(step)


def _shortened(name: str) -> str:
    return shorten(name, NAME_CHARS, placeholder=" ...")


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def _chunks(items: list[_T], size: int) -> list[list[_T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _texts(values: Mapping[str, Scalar], max_chars: int) -> dict[str, str]:
    return {name: str(value)[:max_chars] for name, value in values.items()}
