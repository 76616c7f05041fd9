"""Tables for the terminal: a sweep's trials, the data of its steps, the result of a promotion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from search_spaces.distributions import Scalar
from search_spaces.params import METHOD
from sweeps.findings import read_trials
from sweeps.progress import duration, shown
from sweeps.results import AIMED, EXCESS, Trial
from sweeps.spec import SweepSpec
from sweeps.tables import TextTable
from sweeps.terminal import console, say
from trainables.objectives import COSTS

VOC_COLUMNS = {"voc11_ap50_all": "VOC07\nAP50", "voc_area_ap50_all": "VOC12\nAP50"}
COST_COLUMNS = {"time_train_s": "seconds", "extra_memory_mb": "extra\nMB"}
AP_COLUMNS = {"ap_all": "AP all", "ap_old": "AP old", "ap_new": "AP new", "forgetting": "forgetting"}


def points(value: float | None) -> str:
    """A fraction as COCO points: x100, one decimal."""
    return "-" if value is None or value != value else f"{100 * value:.1f}"


def show_sweep(uri: str, name: str) -> None:
    """Print the trials of a sweep, best first; those stopped early with what they had reached; why others failed."""
    spec, found = read_trials(uri, name)
    aims = {AIMED + one.name: one.name for one in spec.aim.objectives if one.name not in AP_COLUMNS}
    columns = AP_COLUMNS | {key: text.replace("_", "_\n") for key, text in aims.items()}
    several = len(spec.methods) > 1  # a column for each parameter of each would be wider than any terminal
    names = [key.removeprefix(f"{spec.method}/").replace("/", "/\n").replace("_", "_\n") for key in spec.space]
    own = [METHOD, "parameters"] if several else names
    table = TextTable(
        f"{name}: {len(found)} trials, AP in COCO points", "trial", *columns.values(), "state", "time", *own,
        words=("state", METHOD, "parameters"), wrapped=("parameters",),
    )  # fmt: skip
    for trial in found:
        values = [_value(key, trial.ap.get(key)) for key in columns]
        given = {key: trial.params[key] for key in spec.space if key in trial.params}
        table.add(
            str(trial.number), *values, _state(trial), duration(trial.hours * 3600),
            *([trial.method, parameters(given)] if several else [short(given.get(key, "-")) for key in spec.space]),
        )  # fmt: skip
    out = console()
    out.print(table)
    for line in failures(found):
        say(out, line)


def failures(found: Iterable[Trial]) -> list[str]:
    """Why trials failed, or are not finished."""
    return [f"trial {trial.number} {trial.state}: {trial.message}" for trial in found if trial.message]


def parameters(given: Mapping[str, Scalar]) -> str:
    """`lambda_cls 0.06, lr_scale 1.5`: by their flat names, in words."""
    return ", ".join(f"{name.rpartition('/')[2]} {short(value)}" for name, value in given.items())


def short(value: Scalar) -> str:
    """A parameter with three digits."""
    try:
        return f"{float(value):.3g}" if not isinstance(value, bool) else str(value)
    except ValueError:
        return str(value)


def _state(trial: Trial) -> str:
    return ", misses ".join([trial.state, *_missed(trial)][:2])


def _missed(trial: Trial) -> list[str]:
    return [key.removeprefix(EXCESS) for key, value in trial.ap.items() if key.startswith(EXCESS) and value > 0]


def _value(key: str, value: float | None) -> str:
    metric = next((cost for cost in COSTS if key.endswith(cost)), "ap_all")
    return "-" if value is None else shown(metric, value)


def result_table(rows: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> TextTable:
    """A row a method from its metrics over seeds: mean, and spread where there are several; and what it cost."""
    scores = AP_COLUMNS | {key: text for key, text in VOC_COLUMNS.items() if any(key in own for own in rows.values())}
    table = TextTable(title, "", *(scores | COST_COLUMNS).values(), words=("",))
    for name, metrics in rows.items():
        costs = [f"{fmean(metrics[key]):.1f}" if key in metrics else "-" for key in COST_COLUMNS]
        table.add(name, *(mean_and_spread(metrics.get(key, ())) for key in scores), *costs)
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
    title = f"{spec.scenario.name} in {splits.train.annotations.parent}"
    table = TextTable(title, "step", "classes", "training images", "boxes", words=("classes",), wrapped=("classes",))
    for step, names in enumerate(spec.scenario.steps):
        seen = training_set(train, names)
        listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        table.add(str(step + 1), listed, str(len(seen["images"])), str(len(seen["annotations"])))
    console().print(table)
    sizes = {name: len(read(getattr(splits, name).annotations)["images"]) for name in ("tune", "test")}
    say(console(), f"trials are scored on {sizes['tune']} tune images, results on {sizes['test']} test images")
