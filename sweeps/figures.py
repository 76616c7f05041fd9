"""The pictures of a report, made of `Findings` alone. AP and what is made of it are in COCO points."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import cycle
from statistics import fmean
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
from plotly.colors import qualitative

from search_spaces.distributions import Choice, IntUniform, LogUniform
from search_spaces.params import METHOD
from sweeps.findings import Findings
from sweeps.results import Trial, pareto_front
from sweeps.samplers import directions, optuna_distribution
from sweeps.step_figure import ap_points
from trainables.objectives import COSTS, Objective

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

ENOUGH_FOR_IMPORTANCE = 30  # with fewer trials, importances look far surer than they are
NUM_CURVES = 6


def heat_map(found: Findings) -> go.Figure | None:
    """AP by step and class of the best trial."""
    if (matrix := found.matrix) is None:
        return None
    figure = go.Figure(
        go.Heatmap(
            z=ap_points(matrix.rows, len(matrix.classes)),
            x=list(matrix.classes),
            y=[f"after step {step + 1}" for step in range(len(matrix.rows))],
            colorscale="Viridis",
            texttemplate="%{z:.1f}" if len(matrix.classes) <= 20 else None,
            colorbar={"title": "AP"},
        )
    )
    figure.update_yaxes(autorange="reversed")
    return figure.update_layout(title=f"AP by step and class, trial {matrix.number}", xaxis={"type": "category"})


def forgetting_curves(found: Findings) -> go.Figure:
    """Forgetting after each step, of the best trials and of the compared methods."""
    figure = go.Figure()
    for trial in found.finished[:NUM_CURVES]:
        steps = {step: row["forgetting"] for step, row in found.steps[trial.number].items() if "forgetting" in row}
        _add_curve(figure, steps, f"trial {trial.number}", {})
    for name, metrics in found.references.items():
        if "forgetting" in metrics and not name.startswith("test/"):
            _add_curve(figure, metrics["forgetting"], name, {"dash": "dot"})
    figure.update_xaxes(title="step", dtick=1)
    return figure.update_layout(title="Forgetting by step", yaxis_title="forgetting, AP points")


def _add_curve(figure: go.Figure, steps: Mapping[int, float], name: str, line: dict[str, Any]) -> None:
    xs = sorted(steps)
    ys = [100 * steps[step] for step in xs]
    figure.add_scatter(x=[step + 1 for step in xs], y=ys, name=name, mode="lines+markers", line=line)


def trade_off(found: Findings) -> go.Figure:
    """Each trial in two objectives, or in AP of new and old classes; what no other trial beats is joined by a line."""
    aim = found.spec.aim.objectives
    x, y = (aim[0], aim[1]) if len(aim) > 1 else (Objective("ap_new"), Objective("ap_old"))
    places = [(trial, trial.reached(x), trial.reached(y)) for trial in found.trials]
    known = [(trial, _scaled(x, a), _scaled(y, b)) for trial, a, b in places if a is not None and b is not None]
    figure = go.Figure()
    if len(found.spec.methods) == 1:
        _add_trials(figure, known)
    else:
        for method, color in zip(found.spec.methods, cycle(qualitative.Plotly), strict=False):
            own = [place for place in known if place[0].method == method]
            _add_trials(figure, own, (method, f"{method}, stopped"), color)
    if len(aim) > 1:
        unbeaten = {trial.number for trial in pareto_front(found.spec, found.trials)}
        front = sorted((a, b) for trial, a, b in known if trial.number in unbeaten)
        figure.add_scatter(x=[a for a, _ in front], y=[b for _, b in front], mode="lines", name="front")
    title = "Pareto front" if len(aim) > 1 else "Old classes against new ones"
    return figure.update_layout(title=title, xaxis_title=x.name, yaxis_title=y.name)


def memory(rows: Mapping[str, Mapping[str, Sequence[float]]]) -> go.Figure | None:
    """AP against what a method holds beside its student, by row of a promotion; None where all hold as much.

    Of rows that hold as much the best has its name, the others tell theirs under the pointer.
    """
    places = {
        name: (fmean(row["extra_memory_mb"]), 100 * fmean(row["ap_all"]))
        for name, row in rows.items()
        if "extra_memory_mb" in row
    }
    if len({held for held, _ in places.values()}) < 2:
        return None
    best = dict(sorted(places.values()))  # of equal memory the highest AP comes last, and stays
    labels = [name if best[held] == ap else "" for name, (held, ap) in places.items()]
    xs, ys = zip(*places.values(), strict=True)
    mark = {"mode": "markers+text", "marker": {"size": 9}, "textposition": "top center", "cliponaxis": False}
    figure = go.Figure(go.Scatter(x=xs, y=ys, text=labels, hovertext=list(places), **mark))
    return figure.update_layout(
        title="AP against memory", xaxis_title="MB beside the student: teacher and buffer", yaxis_title="AP all"
    )


def _add_trials(
    figure: go.Figure,
    places: Sequence[tuple[Trial, float | str, float]],
    names: tuple[str, str] = ("finished", "stopped"),
    color: str | None = None,
) -> None:
    """A mark for each trial at its x and y; `names` are those of finished and of stopped ones."""
    for state, name, symbol in zip(("finished", "stopped"), names, ("circle", "x"), strict=True):
        mark = {"size": 9, "symbol": symbol, "color": color}
        own = [(f"trial {trial.number}", x, y) for trial, x, y in places if trial.state == state]
        labels, xs, ys = zip(*own, strict=True) if own else ((), (), ())
        figure.add_scatter(x=xs, y=ys, text=labels, mode="markers", name=name, marker=mark)


def _scaled(objective: Objective, value: float) -> float:
    return value if objective.metric in COSTS else 100 * value


def stops(found: Findings) -> go.Figure:
    """How far each trial came on the clock."""
    colors = {"finished": "#4c78a8", "stopped": "#f58518", "failed": "#e45756"}
    figure = go.Figure()
    for state, color in colors.items():
        own = [trial for trial in found.trials if trial.state == state]
        figure.add_bar(
            x=[trial.number for trial in own], y=[trial.progress for trial in own], name=state, marker={"color": color}
        )
    return figure.update_layout(
        title="Epochs that each trial trained", xaxis_title="trial", yaxis_title="epochs of increments"
    )


def slices(found: Findings) -> list[go.Figure]:
    """The first objective against each parameter searched."""
    objective = found.spec.objective
    figures = []
    for name, distribution in found.spec.space.items():
        places = [(trial, _parameter(trial, name), trial.reached(objective)) for trial in found.trials]
        known = [(trial, v, _scaled(objective, o)) for trial, v, o in places if v is not None and o is not None]
        figure = go.Figure()
        _add_trials(figure, known, ("finished", "stopped, where it was"))
        numeric = not isinstance(distribution, Choice)
        logarithmic = isinstance(distribution, LogUniform) or (
            isinstance(distribution, IntUniform) and distribution.log
        )
        figure.update_xaxes(type="log" if logarithmic else "linear" if numeric else "category")
        figures.append(figure.update_layout(title=name, xaxis_title=name, yaxis_title=objective.name, height=350))
    return figures


def _parameter(trial: Trial, name: str) -> float | str | None:
    text = trial.method if name == METHOD else trial.params.get(name)
    try:
        return float(text) if text is not None else None
    except ValueError:
        return text


def importances(found: Findings) -> tuple[go.Figure | None, str]:
    """What each parameter explains of each objective (PED-ANOVA), or why it is not shown; and of how many trials."""
    import optuna

    finished = [trial for trial in found.trials if trial.values(found.spec.aim) is not None]
    told = f"{len(finished)} finished trials"
    if found.spec.each_method:
        return None, "no importance compares parameters of different methods"
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if len(finished) < ENOUGH_FOR_IMPORTANCE:
        return None, f"{told}; with fewer than {ENOUGH_FOR_IMPORTANCE} importances are not worth showing"
    study = optuna.create_study(directions=directions(found.spec.aim))
    for trial in finished:
        given = {name: _parameter(trial, name) for name in found.spec.space}
        params = {name: _typed(found.spec.space[name], value) for name, value in given.items() if value is not None}
        ranges = {name: optuna_distribution(found.spec.space[name]) for name in params}
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=ranges, values=trial.values(found.spec.aim))
        )
    figure = go.Figure()
    for index, objective in enumerate(found.spec.aim.objectives):
        sign = -1 if objective.direction == "max" else 1  # with a target, what is low is explained
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="PedAnovaImportanceEvaluator computes")  # of low values, it says
            ranked = optuna.importance.get_param_importances(study, target=partial(_value, index, sign))
        figure.add_bar(x=list(ranked.values()), y=list(ranked), orientation="h", name=objective.name)
    figure.update_yaxes(autorange="reversed")
    return figure.update_layout(title=f"Importance of parameters, {told}"), told


def _value(index: int, sign: int, trial: FrozenTrial) -> float:
    return float(sign * trial.values[index])


def _typed(distribution: Any, value: float | str) -> Any:
    if isinstance(distribution, Choice):
        return next((choice for choice in distribution.values if str(choice) == str(value) or choice == value), value)
    return int(value) if isinstance(distribution, IntUniform) else float(value)
