"""The report of a sweep: one HTML page that needs no network."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from sweeps.results import Trial
from sweeps.show import AP_COLUMNS, points
from sweeps.spec import SweepSpec

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}
table{{border-collapse:collapse}}td,th{{padding:.3rem .8rem;text-align:right;border-bottom:1px solid #ddd}}
td:first-child,th:first-child{{text-align:left}}pre{{background:#f6f6f6;padding:1rem;overflow:auto}}</style>
<h1>{title}</h1><p>{lead}</p>{table}{figures}<h2>Sweep file</h2><pre>{spec}</pre></html>
"""


def write_report(
    spec: SweepSpec, trials: Sequence[Trial], rows: Mapping[str, Mapping[str, Sequence[float]]] | None = None
) -> str:
    """The page as text.

    Args:
        rows: metrics on the test split by method and name, one value a seed; None before the promotion.
    """
    finished = sum(trial.state == "finished" for trial in trials)
    lead = (
        f"{spec.method} on {spec.scenario.name}, {spec.detector}: {len(trials)} trials, {finished} finished. "
        f"AP in COCO points; trials are scored on the tune split, the table on the test split."
    )
    figures = [_old_and_new(trials), _history(spec, trials)]
    pictures = [figure.to_html(full_html=False, include_plotlyjs=not place) for place, figure in enumerate(figures)]
    return PAGE.format(
        title=html.escape(f"Sweep {spec.name}"),
        lead=html.escape(lead),
        table=_table(rows) if rows else "",
        figures="".join(pictures),
        spec=html.escape(spec.text),
    )


def _table(rows: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    head = "".join(f"<th>{title}</th>" for title in ("", *AP_COLUMNS.values()))
    lines = [
        f"<tr><td>{html.escape(name)}</td>"
        + "".join(f"<td>{points(_mean(metrics.get(key, ())))}</td>" for key in AP_COLUMNS)
        for name, metrics in rows.items()
    ]
    return f"<h2>Result</h2><table><tr>{head}</tr>{''.join(lines)}</table>"


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _old_and_new(trials: Sequence[Trial]) -> go.Figure:
    known = [trial for trial in trials if "ap_old" in trial.ap and "ap_new" in trial.ap]
    figure = go.Figure(
        go.Scatter(
            x=[100 * trial.ap["ap_new"] for trial in known],
            y=[100 * trial.ap["ap_old"] for trial in known],
            text=[f"trial {trial.number} ({trial.state})" for trial in known],
            mode="markers",
            marker={"size": 10, "symbol": ["circle" if t.state == "finished" else "x" for t in known]},
        )
    )
    return figure.update_layout(title="Old classes against new ones", xaxis_title="AP new", yaxis_title="AP old")


def _history(spec: SweepSpec, trials: Sequence[Trial]) -> go.Figure:
    done = [trial for trial in trials if trial.state == "finished" and spec.objective in trial.ap]
    figure = go.Figure(
        go.Scatter(
            x=[trial.number for trial in done],
            y=[trial.ap[spec.objective] for trial in done],
            mode="markers",
            marker={"size": 10},
        )
    )
    return figure.update_layout(title="Finished trials", xaxis_title="trial", yaxis_title=spec.objective)
