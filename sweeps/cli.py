"""The command line. Each verb loads what it needs and nothing more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from trainables.errors import PalimpsestError

SPEC = click.argument("spec", type=click.Path(path_type=Path))


class _Verbs(click.Group):
    """Errors that a person can act on are told in plain lines, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PalimpsestError as error:
            click.echo(str(error), err=True)
            raise SystemExit(1) from None


def _verb(name: str, example: str) -> Any:
    return main.command(name, epilog=f"Example: {example}")


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
    loaded = _load(spec)
    from sweeps.show import show_data

    show_data(loaded)


@_verb("check", "sweeps check sweeps/configs/erd_digits.yaml")
@SPEC
def check(spec: Path) -> None:
    """Check a sweep file: every mistake at once. Loads neither torch nor Ray.

    What each key means is told in sweeps/spec_file.py.
    """
    loaded = _load(spec)
    click.echo(
        f"{spec.name}: good. {loaded.trials} trials of {loaded.method} on {loaded.scenario.name}, {loaded.detector}"
    )
    for name, distribution in loaded.space.items():
        click.echo(f"  {name} from {distribution}, trial 0: {loaded.defaults()[name]}")


@_verb("debug", "sweeps debug sweeps/configs/erd_digits.yaml")
@SPEC
def debug(spec: Path) -> None:
    """Run trial 0 in this process, without Ray: breakpoints work. Records nothing."""
    loaded = _load(spec)
    from sweeps.demo import debug_trial
    from trainables.environment import require_ops

    require_ops()

    debug_trial(loaded)


@_verb("run", "sweeps run sweeps/configs/erd_digits.yaml --resume")
@SPEC
@click.option("--resume", is_flag=True, help="Go on with an interrupted sweep; start it if it never was.")
def run(spec: Path, resume: bool) -> None:
    """Run a sweep: references, then trials, every step recorded in MLflow."""
    loaded = _load(spec)
    from sweeps.progress import Display
    from sweeps.runner import run_sweep

    with Display() as display:
        run_sweep(loaded, resume, display)
    click.echo(f"next: sweeps show {loaded.name}; sweeps promote {loaded.name}; sweeps ui")


@_verb("show", "sweeps show erd_digits")
@click.argument("name")
@click.option("--tracking-uri", help="MLflow server; default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db")
def show(name: str, tracking_uri: str | None) -> None:
    """The trials of a sweep, best first, as MLflow has them."""
    from sweeps.show import show_sweep
    from sweeps.spec import tracking_uri as resolved

    show_sweep(resolved(tracking_uri), name)


@_verb("promote", "sweeps promote erd_digits --trial 3")
@click.argument("name")
@click.option("--trial", help="Number or id of the trial; default: the best by the sweep's objective.")
@click.option(
    "--storage", type=click.Path(path_type=Path), help="The sweep's storage; default: PALIMPSEST_STORAGE, else runs"
)
def promote(name: str, trial: str | None, storage: Path | None) -> None:
    """Train the best configuration finally, report it on the test split, register it as champion if it is better."""
    from sweeps.spec import stored_spec

    spec = stored_spec(name, storage)
    from sweeps.progress import Display
    from sweeps.promotion import promote_sweep

    with Display() as display:
        promote_sweep(spec, trial, display)


@_verb("store", "sweeps store --prune 30")
@click.option(
    "--storage", type=click.Path(path_type=Path), help="A sweep's storage; default: PALIMPSEST_STORAGE, else runs"
)
@click.option("--store", "root", metavar="URL", help="The store itself, a folder or a URL such as s3://bucket/store.")
@click.option("--kind", help="Entries of this kind alone: steps, scores, images, targets or responses.")
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


@_verb("ui", "sweeps ui --port 5001")
@click.option("--port", default=5000, show_default=True)
@click.option("--tracking-uri", help="default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db")
def ui(port: int, tracking_uri: str | None) -> None:
    """Open the MLflow UI on 127.0.0.1."""
    from sweeps.spec import tracking_uri as resolved

    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", resolved(tracking_uri)]
    raise SystemExit(subprocess.call([*command, "--host", "127.0.0.1", "--port", str(port)]))


def _load(spec: Path) -> Any:
    from sweeps.spec import load_spec

    return load_spec(spec)
