"""The boards of a sweep: its best trials beside its references, and what promotion found, as rows of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from sweeps.figures import NUM_CURVES
from sweeps.findings import Findings
from sweeps.progress import shown
from sweeps.results import AIMED, Trial, metric_name
from sweeps.show import AP_COLUMNS, mean_and_spread, points
from sweeps.work import STUDENT_ALONE


class Board(NamedTuple):
    """A table; AP in COCO points."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def leaderboard(found: Findings) -> Board:
    """The references, then the best trials, on the tune split."""
    return (_pooled_board if found.spec.aim.pooled else _leaderboard)(found, found.finished)


def final_board(result: Mapping[str, Mapping[str, Sequence[float]]]) -> Board:
    """What promotion found on one scenario, on the test split."""
    means = {name: fmean(row["ap_all"]) for name, row in result.items() if row.get("ap_all")}
    rows = [
        [
            name,
            *(mean_and_spread(row.get(key, ())) for key in AP_COLUMNS),
            _share(means.get(name), means.get("finetune"), means.get("joint")),
        ]
        for name, row in result.items()
    ]
    return Board(["mean ± half the range of the seeds", *AP_COLUMNS.values(), "gap closed"], rows)


def lead(found: Findings) -> str:
    """The sweep in some sentences."""
    spec, states = found.spec, [trial.state for trial in found.trials]
    scenarios = ", ".join(one.name for one in spec.whole_scenarios)
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    lines = [
        f"{', '.join(spec.methods)} on {scenarios}, {spec.detector}: {len(states)} trials, {counts}.",
        f"Aim: {spec.aim.line}. {spec.protocol[0].upper()}{spec.protocol[1:]}.",
        "AP in COCO points.",
    ]
    if found.race:
        lines.append(f"{found.race['words']}.")
    return " ".join(lines)


def _leaderboard(found: Findings, best: Sequence[Trial]) -> Board:
    """With the share that each row closes of the gap between fine-tuning, or the student alone, and joint training, or
    the last teacher.
    """
    last = len(found.spec.scenario.steps) - 1
    rows = {
        name: {metric: values[last] for metric, values in metrics.items() if last in values}
        for name, metrics in found.references.items()
        if not name.startswith("test/")
    }
    rows |= {called(found, trial): dict(trial.ap) for trial in _leaders(found, best)}
    upper = next((name for name in reversed(rows) if name.startswith("teacher")), "joint")
    lower = STUDENT_ALONE if found.spec.teachers else "finetune"
    floor, ceiling = (rows.get(name, {}).get("ap_all") for name in (lower, upper))
    if floor is None:  # fine-tuning may be one of the methods searched
        floor = next((trial.ap.get("ap_all") for trial in best if _is_preset(found, trial, "finetune")), None)
    aims = {AIMED + one.name: one for one in found.spec.aim.objectives if one.name not in AP_COLUMNS}
    head = ["tune split", *AP_COLUMNS.values(), *(one.name for one in aims.values()), "gap closed"]
    body = []
    for name, row in rows.items():
        cells = [points(row.get(key)) for key in AP_COLUMNS]
        cells += [shown(one.metric, row[key]) if key in row else "-" for key, one in aims.items()]
        body.append([name, *cells, _share(row.get("ap_all"), floor, ceiling)])
    return Board(head, body)


def _pooled_board(found: Findings, best: Sequence[Trial]) -> Board:
    """The best trials by all scenarios together and by each of them, beneath each one's references."""
    names = [one.name for one in found.spec.scenarios]
    keys = [metric_name(name) for name in names]
    rows: dict[str, list[float | None]] = {}
    for name, metrics in found.references.items():
        scenario, _, row = name.rpartition("/")
        if scenario in keys and "ap_all" in metrics and not name.startswith("test/"):
            place = keys.index(scenario)
            rows.setdefault(row, [None] * len(keys))[place] = metrics["ap_all"].get(
                len(found.spec.scenarios[place].steps) - 1
            )
    board = [[row, "-", *map(points, values)] for row, values in rows.items()]
    for trial in _leaders(found, best):
        pooled = trial.ap.get(AIMED + found.spec.objective.name)
        board.append([called(found, trial), points(pooled), *(points(trial.ap.get(f"{key}/ap_all")) for key in keys)])
    pooled_by = f"{found.spec.aim.pooled} of {found.spec.objective.name}"
    return Board(["tune split", pooled_by, *(f"{name}: AP all" for name in names)], board)


def _leaders(found: Findings, best: Sequence[Trial]) -> list[Trial]:
    """The best trials, or of methods searched alike the best of each, and the published defaults wherever they are."""
    leading = list(best[:NUM_CURVES])
    if found.spec.each_method:
        leading = list({trial.method: trial for trial in reversed(best)}.values())
    return [trial for trial in best if trial in leading or _is_preset(found, trial)]


def _is_preset(found: Findings, trial: Trial, method: str | None = None) -> bool:
    """Whether a trial is one of the first, which are the methods' presets; of one method if it is given."""
    return trial.number < len(found.spec.methods) and method in (None, trial.method)


def called(found: Findings, trial: Trial) -> str:
    """A trial in a table: `trial 7, erd (published defaults)`."""
    missed = "" if trial.holds(found.spec.aim) else ", misses a constraint"
    preset = " (published defaults)" if _is_preset(found, trial) else ""
    method = f", {trial.method}" if len(found.spec.methods) > 1 else ""
    return f"trial {trial.number}{method}{preset}{missed}"


def _share(value: float | None, floor: float | None, ceiling: float | None) -> str:
    if value is None or floor is None or ceiling is None or ceiling <= floor:
        return "-"
    return f"{100 * (value - floor) / (ceiling - floor):.0f} %"
