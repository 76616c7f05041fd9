"""The files of a step's run in MLflow: its tables and its pictures."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from search_spaces.distributions import Scalar
from sweeps.step_figure import step_figure
from trainables.errors import one_line
from trainables.records import known_picture

if TYPE_CHECKING:
    from mlflow import MlflowClient

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


def log_tables(
    client: MlflowClient, run_id: str, class_table: Sequence[Mapping[str, Scalar | None]], ap_matrix: Mapping[str, Any]
) -> None:
    """Keep `class_table` as `classes.csv` and `ap_matrix` as `ap_matrix.json`; see `sweeps.runs.Runs.log_step`."""
    client.log_text(run_id, _csv(class_table), "classes.csv")
    client.log_text(run_id, json.dumps(_nan_as_null(ap_matrix), allow_nan=False), "ap_matrix.json")


def log_pictures(
    client: MlflowClient,
    run_id: str,
    ap_matrix: Mapping[str, Any],
    curves: Mapping[str, Sequence[float]],
    store: Path | str | None,
    scored: Mapping[str, Any],
) -> None:
    """Keep `ap.png`, and from the store `boxes.jpg`; a picture that cannot be had is no reason to write nothing.

    Args:
        curves: see `sweeps.step_figure.step_figure`.
        scored: what the step's score in the store depends on.
    """
    if figure := _if_possible(lambda: step_figure(ap_matrix["classes"], ap_matrix["ap"], curves)):
        client.log_figure(run_id, figure, "ap.png")
    if picture := _if_possible(lambda: known_picture(store, scored) if store else None):
        client.log_artifact(run_id, str(picture))


def _if_possible(make: Callable[[], _T]) -> _T | None:
    try:
        return make()
    except Exception as error:  # whatever it is: a store that is away, a class name that cannot be drawn
        _log.warning("a step has a picture less: %s", one_line(error))
        return None


def _csv(rows: Sequence[Mapping[str, Scalar | None]]) -> str:
    """Rows under a header that has every column named in any row; nan is an empty cell."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_nan_as_null(row) for row in rows)
    return text.getvalue()


def _nan_as_null(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _nan_as_null(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_nan_as_null(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
