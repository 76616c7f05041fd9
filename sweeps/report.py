"""The report of a sweep: one HTML page that needs no network, made of what MLflow holds."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

import plotly.graph_objects as go

from sweeps import figures
from sweeps.costs import HOURS
from sweeps.findings import Findings, read_findings
from sweeps.leaderboard import Board, final_board, lead, leaderboard
from sweeps.show import failures

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:66rem;margin:2rem auto;padding:0 1rem}}
table{{border-collapse:collapse}}td,th{{padding:.3rem .8rem;text-align:right;border-bottom:1px solid #ddd}}
td:first-child,th:first-child{{text-align:left}}pre{{background:#f6f6f6;padding:1rem;overflow:auto}}
.slices{{display:grid;grid-template-columns:repeat(auto-fill,minmax(20rem,1fr))}}</style>
<h1>{title}</h1>{body}</html>
"""


def sweep_report(uri: str, name: str) -> str:
    """The page of a sweep, of today or of long ago.

    Raises:
        TrackingError: MLflow does not answer, or has no such sweep.
        SpecError: the sweep file that MLflow holds is not one.
    """
    return page(read_findings(uri, name))


def page(found: Findings) -> str:
    """The page as text."""
    title = html.escape(f"Sweep {found.spec.name}")
    return PAGE.format(title=title, body="".join(_sections(found)))


def _sections(found: Findings) -> Iterator[str]:
    yield f"<p>{html.escape(lead(found))}</p>"
    yield "<h2 id=result>Result</h2>" + _table(leaderboard(found)) + _failures(found)
    pictures = _Pictures()
    if found.result:
        yield "<h2 id=test>On the test split</h2>"
        for scenario, rows in found.result.items():
            picture = figures.memory(rows)
            board = _table(final_board(rows))
            yield f"<h3>{html.escape(scenario)}</h3>{board}{pictures.html(picture) if picture else ''}"
    if heat := figures.heat_map(found):
        yield "<h2 id=classes>AP by step and class</h2>" + pictures.html(heat)
    yield "<h2 id=forgetting>Forgetting</h2>" + pictures.html(figures.forgetting_curves(found))
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


def _failures(found: Findings) -> str:
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in failures(found.trials))
    return f"<ul>{lines}</ul>" if lines else ""


def _stopping(found: Findings) -> str:
    stopped = [trial for trial in found.trials if trial.state == "stopped"]
    whole = found.spec.max_progress * len(found.trials)
    spared = sum(found.spec.max_progress - trial.progress for trial in stopped)
    share = f"{100 * spared / whole:.0f} %" if whole else "0 %"
    who = f"{len(stopped)} of {len(found.trials)} trials were stopped early"
    return f"<p>{who}, which spared {spared} of {whole} epochs ({share}).</p>"


def _hours(found: Findings) -> str:
    units = [unit for unit in HOURS if found.metrics.get(f"{unit}_hours_spent")]
    names = [name.removeprefix("core_hours_") for name in found.metrics if name.startswith("core_hours_")]
    rows = [
        [name.replace("_", " by "), *(f"{found.metrics[f'{unit}_hours_{name}']:.3f}" for unit in units)]
        for name in names
    ]
    return _table(Board(["", *(HOURS[unit] for unit in units)], rows)) if units else "<p>not told yet</p>"


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
    return _table(Board(["", ""], rows))


def _table(board: Board) -> str:
    def line(tag: str, cells: Sequence[str]) -> str:
        return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"

    return f"<table>{line('th', board.head)}{''.join(line('td', row) for row in board.rows)}</table>"
