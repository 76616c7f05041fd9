"""The report of a sweep: one HTML page that needs no network, made of what MLflow holds."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

import plotly.graph_objects as go

from sweeps import figures
from sweeps.connection import answered, connect
from sweeps.findings import Findings, read_findings
from sweeps.progress import shown
from sweeps.results import OBJECTIVE, Trial, metric_name, searched
from sweeps.show import AP_COLUMNS, mean_and_spread, points, ranked
from sweeps.work import STUDENT_ALONE

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:66rem;margin:2rem auto;padding:0 1rem}}
table{{border-collapse:collapse}}td,th{{padding:.3rem .8rem;text-align:right;border-bottom:1px solid #ddd}}
td:first-child,th:first-child{{text-align:left}}pre{{background:#f6f6f6;padding:1rem;overflow:auto}}
.slices{{display:grid;grid-template-columns:repeat(auto-fill,minmax(20rem,1fr))}}</style>
<h1>{title}</h1>{body}</html>
"""


def sweep_report(uri: str, name: str) -> str:
    """The page of a sweep, of today or of long ago; it is kept on the sweep's run as `report.html`.

    Raises:
        TrackingError: MLflow does not answer, or has no such sweep.
        SpecError: the sweep file that MLflow holds is not one.
    """
    best = [trial.number for trial in ranked(searched(uri, name)) if trial.state == "finished"]
    found = read_findings(uri, name, matrices=best[:1])
    text = page(found)
    answered(uri, lambda: connect(uri).log_text(found.run_id, text, "report.html"))
    return text


def page(found: Findings) -> str:
    """The page as text."""
    title = html.escape(f"Sweep {found.spec.name}")
    return PAGE.format(title=title, body="".join(_sections(found)))


def _sections(found: Findings) -> Iterator[str]:
    best = [trial for trial in ranked(found.trials) if trial.state == "finished"]
    yield _lead(found)
    boards = _pooled_board(found, best) if found.spec.aim.pooled else _leaderboard(found, best)
    yield "<h2 id=result>Result</h2>" + boards
    pictures = _Pictures()
    if found.result:
        yield "<h2 id=test>On the test split</h2>"
        for scenario, rows in found.result.items():
            picture = figures.memory(rows)
            yield f"<h3>{html.escape(scenario)}</h3>{_final(rows)}{pictures.html(picture) if picture else ''}"
    if heat := figures.heat_map(found):
        yield "<h2 id=classes>AP by step and class</h2>" + pictures.html(heat)
    yield "<h2 id=forgetting>Forgetting</h2>" + pictures.html(figures.forgetting_curves(found, best))
    yield "<h2 id=tradeoff>Trade-off</h2>" + pictures.html(figures.trade_off(found))
    importance, told = figures.importances(found)
    yield "<h2 id=parameters>Parameters</h2>" + (
        pictures.html(importance) if importance else f"<p>{html.escape(told)}.</p>"
    )
    yield f"<div class=slices>{''.join(map(pictures.html, figures.slices(found)))}</div>"
    yield "<h2 id=stopping>Early stopping</h2>" + _stopping(found) + pictures.html(figures.stops(found))
    yield "<h2 id=hours>Hours</h2>" + _hours(found)
    yield "<h2 id=protocol>Protocol</h2>" + _protocol(found)
    yield f"<h2 id=file>Sweep file</h2><pre>{html.escape(found.spec.text)}</pre>"


class _Pictures:
    """Figures as HTML; the first one brings plotly with it."""

    def __init__(self) -> None:
        self._first = True

    def html(self, figure: go.Figure) -> str:
        text: str = figure.to_html(full_html=False, include_plotlyjs=self._first, default_height=None)
        self._first = False
        return text


def _lead(found: Findings) -> str:
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
    return f"<p>{html.escape(' '.join(lines))}</p>"


def _leaderboard(found: Findings, best: Sequence[Trial]) -> str:
    """The references, then the best trials, on the tune split, with the share that they close of the gap between
    fine-tuning, or the student alone, and joint training, or the last teacher.
    """
    last = len(found.spec.scenario.steps) - 1
    rows = {
        name: {metric: values[last] for metric, values in metrics.items() if last in values}
        for name, metrics in found.references.items()
        if not name.startswith("test/")
    }
    rows |= {_called(found, trial): dict(trial.ap) for trial in _leaders(found, best)}
    upper = next((name for name in reversed(rows) if name.startswith("teacher")), "joint")
    lower = STUDENT_ALONE if found.spec.teachers else "finetune"
    floor, ceiling = (rows.get(name, {}).get("ap_all") for name in (lower, upper))
    if floor is None:  # fine-tuning may be one of the methods searched
        floor = next((trial.ap.get("ap_all") for trial in best if _is_preset(found, trial, "finetune")), None)
    aims = {OBJECTIVE + one.name: one for one in found.spec.aim.objectives if one.name not in AP_COLUMNS}
    head = ["tune split", *AP_COLUMNS.values(), *(one.name for one in aims.values()), "gap closed"]
    body = []
    for name, row in rows.items():
        cells = [points(row.get(key)) for key in AP_COLUMNS]
        cells += [shown(one.metric, row[key]) if key in row else "-" for key, one in aims.items()]
        body.append([name, *cells, _share(row.get("ap_all"), floor, ceiling)])
    return _table(head, body)


def _pooled_board(found: Findings, best: Sequence[Trial]) -> str:
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
        pooled = trial.ap.get(OBJECTIVE + found.spec.objective.name)
        board.append([_called(found, trial), points(pooled), *(points(trial.ap.get(f"{key}/ap_all")) for key in keys)])
    return _table(
        [
            "tune split",
            f"{found.spec.aim.pooled} of {found.spec.objective.name}",
            *(f"{name}: AP all" for name in names),
        ],
        board,
    )


def _leaders(found: Findings, best: Sequence[Trial]) -> list[Trial]:
    """The best trials, or of methods searched alike the best of each, and the published defaults wherever they are."""
    leading = list(best[: figures.NUM_CURVES])
    if found.spec.each_method:
        leading = list({trial.method: trial for trial in reversed(best)}.values())
    return [trial for trial in best if trial in leading or _is_preset(found, trial)]


def _is_preset(found: Findings, trial: Trial, method: str | None = None) -> bool:
    """Whether a trial is one of the first, which are the methods' presets; of one method if it is given."""
    return trial.number < len(found.spec.methods) and method in (None, trial.method)


def _called(found: Findings, trial: Trial) -> str:
    missed = "" if trial.holds(found.spec.aim) else ", misses a constraint"
    preset = " (published defaults)" if _is_preset(found, trial) else ""
    method = f", {trial.method}" if len(found.spec.methods) > 1 else ""
    return f"trial {trial.number}{method}{preset}{missed}"


def _share(value: float | None, floor: float | None, ceiling: float | None) -> str:
    if value is None or floor is None or ceiling is None or ceiling <= floor:
        return "-"
    return f"{100 * (value - floor) / (ceiling - floor):.0f} %"


def _final(result: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    means = {name: fmean(row["ap_all"]) for name, row in result.items() if row.get("ap_all")}
    rows = [
        [
            name,
            *(mean_and_spread(row.get(key, ())) for key in AP_COLUMNS),
            _share(means.get(name), means.get("finetune"), means.get("joint")),
        ]
        for name, row in result.items()
    ]
    return _table(["mean ± half the range of the seeds", *AP_COLUMNS.values(), "gap closed"], rows)


def _stopping(found: Findings) -> str:
    stopped = [trial for trial in found.trials if trial.state == "stopped"]
    whole = found.spec.max_progress * len(found.trials)
    spared = sum(found.spec.max_progress - trial.progress for trial in stopped)
    share = f"{100 * spared / whole:.0f} %" if whole else "0 %"
    who = f"{len(stopped)} of {len(found.trials)} trials were stopped early"
    return f"<p>{who}, which spared {spared} of {whole} epochs ({share}).</p>"


def _hours(found: Findings) -> str:
    units = [unit for unit in ("core", "gpu") if found.metrics.get(f"{unit}_hours_spent")]
    names = [name.removeprefix("core_hours_") for name in found.metrics if name.startswith("core_hours_")]
    rows = [
        [name.replace("_", " by "), *(f"{found.metrics[f'{unit}_hours_{name}']:.3f}" for unit in units)]
        for name in names
    ]
    return _table(["", *(f"{unit}-hours" for unit in units)], rows) if units else "<p>not told yet</p>"


def _protocol(found: Findings) -> str:
    spec = found.spec
    rows = [
        ["protocol", spec.protocol],
        ["sampler, scheduler", f"{spec.sampler}, {spec.scheduler.name}"],
        ["seed of search and training", str(spec.seed)],
        ["seeds of the final training", ", ".join(map(str, spec.promotion.seeds))],
        *(
            [name.removeprefix("version/"), text]
            for name, text in sorted(found.tags.items())
            if name.startswith("version/")
        ),
    ]
    return _table(["", ""], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(tag: str, cells: Sequence[str]) -> str:
        return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"

    return f"<table>{line('th', head)}{''.join(line('td', row) for row in rows)}</table>"
