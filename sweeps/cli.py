"""The command line. Each verb loads what it needs and nothing more."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from trainables.errors import PalimpsestError, masked

SPEC = click.argument("spec", type=click.Path(path_type=Path))
NAME = click.argument("name")
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
STORAGE = click.option(
    "--storage", type=click.Path(path_type=Path), help="The sweep's storage; default: PALIMPSEST_STORAGE, else runs"
)
TRACKING = click.option("--tracking-uri", help="MLflow server; default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db")


class _Verbs(click.Group):
    """Errors that a person can act on are told in plain lines, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PalimpsestError as error:
            from sweeps.terminal import console, say

            say(console(stderr=True), str(error))
            raise SystemExit(1) from None
        except KeyboardInterrupt:
            click.echo("interrupted; the same command begins again", err=True)
            raise SystemExit(1) from None


def _verb(name: str, example: str) -> Any:
    return main.command(name, epilog=f"Example: {example}")


def _prepare() -> None:
    """Before mmdet is imported, which announces itself."""
    from trainables.environment import prepare_process

    prepare_process()


@click.group(cls=_Verbs)
def main() -> None:
    """Find the settings with which an object detector learns new classes without forgetting the old ones."""


@_verb("demo", "sweeps demo")
def demo() -> None:
    """A whole sweep on digit scenes: data, base step, references, search, promotion. Minutes on 2 cores."""
    from sweeps.demo import run_demo

    run_demo()


@_verb("data", "sweeps data sweeps/configs/erd_digits.yaml")
@SPEC
def data(spec: Path) -> None:
    """Prepare and check the data of a sweep; show what each step sees."""
    from sweeps.spec import load_specs

    specs = load_specs(spec)
    from sweeps.show import show_data

    for one in specs:
        show_data(one)


@_verb("check", "sweeps check sweeps/configs/erd_digits.yaml")
@SPEC
def check(spec: Path) -> None:
    """Check a sweep file: every mistake at once. Loads neither torch nor Ray.

    What each key means is told in sweeps/spec_file.py.
    """
    from sweeps.spec import load_specs

    for one in load_specs(spec):
        what = f"{one.trials} trials of {', '.join(one.methods)} on {one.scenario.name}, {one.detector}"
        click.echo(f"{spec.name}: good. {what}")
        points = one.first_points()
        for name, distribution in one.space.items():
            first = next((str(point[name]) for point in points if name in point), "not among the presets")
            click.echo(f"  {name} from {distribution}, first: {first}")


@_verb("debug", "sweeps debug sweeps/configs/erd_digits.yaml")
@SPEC
def debug(spec: Path) -> None:
    """Run trial 0 in this process, without Ray: breakpoints work. Records nothing."""
    from sweeps.spec import load_specs

    loaded = load_specs(spec)[0]
    from sweeps.demo import debug_trial
    from trainables.environment import require_ops

    require_ops()

    debug_trial(loaded)


@_verb("run", "sweeps run sweeps/configs/erd_digits.yaml --resume")
@SPEC
@click.option("--resume", is_flag=True, help="Go on with an interrupted sweep; start it if it never was.")
@click.option("--max-concurrent", type=click.IntRange(min=1), help="Trials at once at most, in place of the file's.")
@click.option(
    "--max-failures", default=2, show_default=True, type=click.IntRange(min=0),
    help="How often a trial is tried again that lost its process or node. Its own errors are not tried again.",
)  # fmt: skip
def run(spec: Path, resume: bool, max_concurrent: int | None, max_failures: int) -> None:
    """Run a sweep: references, then trials, every step recorded in MLflow.

    Ctrl-C, SIGTERM and `ray job stop` save what there is; a second Ctrl-C does not wait for that.
    """
    from sweeps.spec import load_specs

    loaded = load_specs(spec)
    if max_concurrent and any(one.scheduler.name == "pbt" for one in loaded):
        raise click.UsageError("--max-concurrent: pbt takes turns with as many trials as the cluster holds")
    specs = [
        replace(one, max_concurrent=max_concurrent or one.max_concurrent, max_failures=max_failures) for one in loaded
    ]
    from sweeps.progress import Display

    with Display(again=f"sweeps run {spec} --resume") as display:
        if len(specs) > 1:
            from sweeps.side_by_side import run_sweeps

            run_sweeps(specs, resume, display)
        else:
            from sweeps.runner import run_sweep

            run_sweep(specs[0], resume, display)
    for one in specs:
        click.echo(f"next: sweeps show {one.name}; sweeps promote {one.name}; sweeps ui")


@_verb("show", "sweeps show erd_digits")
@NAME
@TRACKING
def show(name: str, tracking_uri: str | None) -> None:
    """The trials of a sweep, best first, as MLflow has them."""
    from sweeps.connection import tracking_uri as resolved
    from sweeps.show import show_sweep

    show_sweep(resolved(tracking_uri), name)


@_verb("report", "sweeps report erd_digits --out erd_digits.html")
@NAME
@click.option("--out", type=click.Path(path_type=Path), help="The page; default: NAME.html")
@TRACKING
def report(name: str, out: Path | None, tracking_uri: str | None) -> None:
    """One page on a sweep, whatever its age, from what MLflow holds; needs no network."""
    from sweeps.connection import tracking_uri as resolved
    from sweeps.report import sweep_report
    from trainables.files import written_whole

    path = out or Path(f"{name}.html")
    text = sweep_report(resolved(tracking_uri), name)
    with written_whole(path) as aside:
        aside.write_text(text, encoding="utf-8")
    click.echo(f"{path}: open it in a browser")


@_verb("promote", "sweeps promote erd_digits --trial 3")
@NAME
@click.option("--trial", help="Number or id of the trial; default: the best by the sweep's objective.")
@STORAGE
def promote(name: str, trial: str | None, storage: Path | None) -> None:
    """Train the best configuration finally, report it on the test split, register it as champion if it is better."""
    from sweeps.spec import stored_spec

    spec = stored_spec(name, storage)
    from sweeps.progress import Display
    from sweeps.promotion import promote_sweep

    with Display(again=f"sweeps promote {name}") as display:
        promote_sweep(spec, trial, display)


@_verb("sync", "sweeps sync erd_digits")
@NAME
@STORAGE
def sync(name: str, storage: Path | None) -> None:
    """Write to MLflow what waits in a sweep's journal, because MLflow was away or the sweep was killed."""
    from sweeps.spec import stored_spec

    spec = stored_spec(name, storage)
    from sweeps.tracking import sync_records

    click.echo(sync_records(spec))


@_verb("store", "sweeps store --prune 30")
@STORAGE
@click.option("--store", "root", metavar="URL", help="The store itself, a folder or a URL such as s3://bucket/store.")
@click.option("--kind", help="Entries of this kind alone: steps, scores, images, targets, responses, latents.")
@click.option(
    "--prune", "days", type=click.FloatRange(min=0), metavar="DAYS",
    help="Remove what nobody used for so many days, more than a sweep lasts, and what killed builders left.",
)  # fmt: skip
def store(storage: Path | None, root: str | None, kind: str | None, days: float | None) -> None:
    """What the sweeps share: base steps, references, scores, tables; with size, age and last use."""
    from sweeps.store_view import prune_store, show_store, store_root

    found = store_root(storage, root)
    if days is None:
        show_store(found, kind)
    else:
        prune_store(found, days, kind)


@_verb("export", "sweeps export runs/store/steps/3f2a/weights.pt models --format onnx-int8 --data sweep.yaml")
@click.argument("checkpoint", type=FILE)
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--detector", help="Of the catalogue: what mmdet's own checkpoints do not say.")
@click.option("--classes", type=FILE, help="Their names, one a line: what NanoDet's own checkpoints do not say.")
@click.option(
    "--format", "form", default="torch", show_default=True, type=click.Choice(["torch", "onnx", "onnx-int8"]),
    help="ONNX needs --data, and the extra `edge`.",
)  # fmt: skip
@click.option("--data", type=FILE, help="Sweep file: its training images calibrate int8, its test split scores.")
def export(
    checkpoint: Path, out: Path, detector: str | None, classes: Path | None, form: str, data: Path | None
) -> None:
    """Put the student of a checkpoint into the folder OUT: no teacher, no optimizer, classes and detector inside."""
    names = classes.read_text(encoding="utf-8").split("\n") if classes else []
    named = [name.strip() for name in names if name.strip()]
    if (form == "torch") == (data is not None):
        raise click.UsageError(f"--format {form} {'takes no' if data else 'needs'} --data")
    _prepare()
    if data is None:
        from sweeps.tools import export_checkpoint

        export_checkpoint(checkpoint, out, detector, named)
    else:
        try:
            from sweeps.edge import export_edge
        except ModuleNotFoundError as error:
            raise click.ClickException(f"there is no {error.name}: uv sync --extra edge") from None
        export_edge(checkpoint, out, detector, named, data, int8=form == "onnx-int8")


@_verb("fps", "sweeps fps models/gfl_r18_tiny-1a2b3c4d.pth --batch 1 --batch 16")
@click.argument("subject", metavar="CHECKPOINT|FILE", type=FILE)
@click.option("--batch", "batch_sizes", multiple=True, type=click.IntRange(min=1), help="Images at once. [default: 1]")
@click.option("--batches", default=100, show_default=True, type=click.IntRange(4, 2000), help="How many are timed.")
@click.option("--shape", nargs=2, default=(128, 128), show_default=True, help="Height and width of the images, in px.")
@click.option("--device", default="cpu", show_default=True, type=click.Choice(["cpu", "cuda"]))
@click.option("--mixed", is_flag=True, help="Mixed precision, on a GPU.")
def fps(
    subject: Path, batch_sizes: tuple[int, ...], batches: int, shape: tuple[int, int], device: str, mixed: bool
) -> None:
    """Latency and throughput of an exported checkpoint, or of a sweep file's detector, post-processing included."""
    _prepare()
    from sweeps.tools import show_speed

    show_speed(subject, batch_sizes or (1,), batches, device, mixed, shape)


@_verb("ui", "sweeps ui --port 5001")
@click.option("--port", default=5000, show_default=True)
@TRACKING
def ui(port: int, tracking_uri: str | None) -> None:
    """Open the MLflow UI on 127.0.0.1."""
    from sweeps.connection import TrackingError, address_problem
    from sweeps.connection import tracking_uri as resolved
    from trainables.files import is_web_address

    uri = resolved(tracking_uri)
    if problem := address_problem(uri):
        raise TrackingError("tracking", [problem])
    if is_web_address(uri):
        click.echo(f"a server with a page of its own: {masked(uri)}")
        return
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    # Not as an argument, which every user of the machine can read: an address may hold a password.
    environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": uri}
    with contextlib.suppress(KeyboardInterrupt):  # which is how it ends
        raise SystemExit(subprocess.call(command, env=environment))
