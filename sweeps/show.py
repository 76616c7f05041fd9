"""Tables for the terminal: a sweep's trials, the data of its steps, the result of a promotion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from sweeps.progress import duration
from sweeps.results import Trial, searched
from sweeps.spec import SweepSpec

AP_COLUMNS = {"ap_all": "AP all", "ap_old": "AP old", "ap_new": "AP new", "forgetting": "forgetting"}


def points(value: float | None) -> str:
    """A fraction as COCO points: x100, one decimal."""
    return "-" if value is None or value != value else f"{100 * value:.1f}"


def show_sweep(uri: str, name: str) -> None:
    """Print the trials of a sweep, best first; those stopped early with what they had reached."""
    found = searched(uri, name)
    varied = [key for key in (found[0].params if found else ()) if len({trial.params.get(key) for trial in found}) > 1]
    varied = [key for key in varied if key != "config_id"]
    table = _table(f"{name}: {len(found)} trials, AP in COCO points")
    names = [key.partition("/")[2].replace("_", "_\n") for key in varied]
    for column in ("trial", *AP_COLUMNS.values(), "state", "time", *names):
        table.add_column(column, justify="left" if column == "state" else "right", no_wrap=True)
    for trial in sorted(found, key=_rank):
        values = [points(trial.ap.get(key)) for key in AP_COLUMNS]
        params = [_short(trial.params[key]) for key in varied]
        table.add_row(str(trial.number), *values, trial.state, duration(trial.hours * 3600), *params)
    Console().print(table)


def _rank(trial: Trial) -> tuple[bool, float]:
    return trial.state != "finished", -trial.ap.get("ap_all", -1.0)


def _short(text: str) -> str:
    try:
        return f"{float(text):.3g}"
    except ValueError:
        return text


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False)


def result_table(rows: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> Table:
    """A row a method from its metrics over seeds: mean, and spread where there are several."""
    table = _table(title)
    table.add_column("")
    for column in AP_COLUMNS.values():
        table.add_column(column, justify="right")
    for name, metrics in rows.items():
        table.add_row(name, *(_mean_and_spread(metrics.get(key, ())) for key in AP_COLUMNS))
    return table


def _mean_and_spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean = sum(values) / len(values)
    if len(values) == 1:
        return points(mean)
    return f"{points(mean)} ± {points((max(values) - min(values)) / 2)}"


def show_data(spec: SweepSpec) -> None:
    """Prepare the data of a sweep, and print what each step sees."""
    from sweeps.work import prepared
    from trainables.datasets.annotations import read
    from trainables.datasets.steps import training_set

    splits = prepared(spec)
    train = read(splits.train.annotations)
    table = _table(f"{spec.scenario.name} in {splits.train.annotations.parent}")
    for column in ("step", "classes", "training images", "boxes"):
        table.add_column(column, justify="left" if column == "classes" else "right")
    for step, names in enumerate(spec.scenario.steps):
        seen = training_set(train, names)
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        table.add_row(str(step + 1), shown, str(len(seen["images"])), str(len(seen["annotations"])))
    Console().print(table)
    sizes = {name: len(read(getattr(splits, name).annotations)["images"]) for name in ("tune", "test")}
    Console().print(f"trials are scored on {sizes['tune']} tune images, results on {sizes['test']} test images")
