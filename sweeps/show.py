"""Tables for the terminal: a sweep's trials, the data of its steps, the result of a promotion."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from rich.box import SIMPLE_HEAD
from rich.table import Table

from search_spaces.params import METHOD
from sweeps.progress import duration, shown
from sweeps.results import EXCESS, OBJECTIVE, Trial, searched
from sweeps.spec import SweepSpec
from sweeps.terminal import console, say
from trainables.objectives import COSTS, DIRECTION_OF

VOC_COLUMNS = {"voc11_ap50_all": "VOC07\nAP50", "voc_area_ap50_all": "VOC12\nAP50"}
COST_COLUMNS = {"time_train_s": "seconds", "extra_memory_mb": "extra\nMB"}
AP_COLUMNS = {"ap_all": "AP all", "ap_old": "AP old", "ap_new": "AP new", "forgetting": "forgetting"}


def points(value: float | None) -> str:
    """A fraction as COCO points: x100, one decimal."""
    return "-" if value is None or value != value else f"{100 * value:.1f}"


def show_sweep(uri: str, name: str) -> None:
    """Print the trials of a sweep, best first; those stopped early with what they had reached."""
    found = searched(uri, name)
    aims = {key: key.removeprefix(OBJECTIVE) for trial in found for key in trial.ap if key.startswith(OBJECTIVE)}
    columns = AP_COLUMNS | {key: text.replace("_", "_\n") for key, text in aims.items() if text not in AP_COLUMNS}
    table = _table(f"{name}: {len(found)} trials, AP in COCO points")
    several = len({trial.method for trial in found}) > 1
    varied = _varied(found)
    names = [key.removeprefix(f"{found[0].method}/").replace("/", "/\n").replace("_", "_\n") for key in varied]
    for column in ("trial", *columns.values(), "state", "time", *([METHOD] if several else names)):
        table.add_column(column, justify="left" if column in ("state", METHOD) else "right", no_wrap=True)
    if several:  # each has parameters of its own: a column for each would be wider than any terminal
        table.add_column("parameters", justify="left")
    for trial in ranked(found):
        values = [_value(key, trial.ap.get(key)) for key in columns]
        given = {key: _short(trial.params[key]) if key in trial.params else "-" for key in varied}
        table.add_row(
            str(trial.number), *values, _state(trial), duration(trial.hours * 3600),
            *([trial.method, _told(trial, given)] if several else given.values()),
        )  # fmt: skip
    console().print(table)


def _varied(found: Sequence[Trial]) -> list[str]:
    """What differs between trials; a parameter of one method alone differs if it does among that method's trials."""
    keys = dict.fromkeys(key for trial in found for key in trial.params if key != "config_id")
    given = {key: {trial.params[key] for trial in found if key in trial.params} for key in keys}
    return [key for key, values in given.items() if len(values) > 1]


def _told(trial: Trial, given: Mapping[str, str]) -> str:
    """`lr_scale 1.5, lambda_cls 0.06`: the parameters that the trial has."""
    return ", ".join(f"{key.rpartition('/')[2]} {given[key]}" for key in given if key in trial.params)


def ranked(found: Sequence[Trial]) -> list[Trial]:
    """Finished ones first, of these those that meet the constraints, of these the best by the first objective."""
    aim = next((key for trial in found for key in trial.ap if key.startswith(OBJECTIVE)), "")
    return sorted(found, key=lambda trial: (*_rank(trial, aim), trial.number))


def _rank(trial: Trial, aim: str) -> tuple[bool, bool, float]:
    metric = next((metric for metric in DIRECTION_OF if aim.endswith(metric)), "ap_all")
    value = trial.ap.get(aim, trial.ap.get("ap_all", -math.inf))
    return trial.state != "finished", bool(_missed(trial)), value if DIRECTION_OF[metric] == "min" else -value


def _state(trial: Trial) -> str:
    return ", misses ".join([trial.state, *_missed(trial)][:2])


def _missed(trial: Trial) -> list[str]:
    return [key.removeprefix(EXCESS) for key, value in trial.ap.items() if key.startswith(EXCESS) and value > 0]


def _value(key: str, value: float | None) -> str:
    metric = next((cost for cost in COSTS if key.endswith(cost)), "ap_all")
    return "-" if value is None else shown(metric, value)


def _short(text: str) -> str:
    try:
        return f"{float(text):.3g}"
    except ValueError:
        return text


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False)


def result_table(rows: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> Table:
    """A row a method from its metrics over seeds: mean, and spread where there are several; and what it cost."""
    table = _table(title)
    table.add_column("")
    scores = AP_COLUMNS | {key: text for key, text in VOC_COLUMNS.items() if any(key in own for own in rows.values())}
    for column in (scores | COST_COLUMNS).values():
        table.add_column(column, justify="right")
    for name, metrics in rows.items():
        costs = [f"{fmean(metrics[key]):.1f}" if key in metrics else "-" for key in COST_COLUMNS]
        table.add_row(name, *(mean_and_spread(metrics.get(key, ())) for key in scores), *costs)
    return table


def mean_and_spread(values: Sequence[float]) -> str:
    """The mean in COCO points and, of several, half their range."""
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
        listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        table.add_row(str(step + 1), listed, str(len(seen["images"])), str(len(seen["annotations"])))
    console().print(table)
    sizes = {name: len(read(getattr(splits, name).annotations)["images"]) for name in ("tune", "test")}
    say(console(), f"trials are scored on {sizes['tune']} tune images, results on {sizes['test']} test images")
