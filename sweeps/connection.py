"""The way to MLflow: an address, a client with bounded waits, and the runs that are there."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from trainables.errors import PalimpsestError, one_line

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_T = TypeVar("_T")


class TrackingError(PalimpsestError):
    """MLflow cannot be used: a wrong address, no answer, or something that is not there."""


def tracking_uri(given: str | None = None) -> str:
    """MLflow's address: as given, else by `MLFLOW_TRACKING_URI`, else `sqlite:///mlflow.db` in the working folder."""
    uri = given or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    database = database_file(uri)
    return f"sqlite:///{database}" if database else uri


def address_problem(uri: str) -> str | None:
    """Why `uri` cannot be the address of a tracking store, or None. MLflow no longer keeps runs in plain folders."""
    if re.fullmatch(r"(sqlite:///|postgresql(\+\w+)?://|https?://).+", uri):
        return None
    allowed = "sqlite:///<file>, postgresql://<user>@<host>/<database>, http(s)://<host>:<port>"
    return f"must be a database or a server ({allowed}), but got {uri!r}"


def connect(uri: str) -> MlflowClient:
    """A client of the tracking store and model registry at `uri`, with bounded waits and a quiet terminal.

    Raises:
        TrackingError: `uri` is neither a database nor a server, or is a database that cannot be opened.
    """
    if problem := address_problem(uri):
        raise TrackingError("tracking", [problem])
    for name, value in {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # MLflow's own 7 take four minutes to say that it is down
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_UV_AUTO_DETECT": "false",  # models would hold the uv.lock of whatever folder this is
    }.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient  # after the variables: some are read at import

    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    fixed = tracking_uri(uri)  # whatever the working directory becomes later
    return answered(uri, lambda: MlflowClient(tracking_uri=fixed, registry_uri=fixed))


def database_file(uri: str) -> Path | None:
    """The absolute path of a SQLite database; None for any other store."""
    return Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None


def answered(uri: str, call: Callable[[], _T]) -> _T:
    """What `call` returns.

    Raises:
        TrackingError: it failed; one line says at which address and why.
    """
    try:
        return call()
    except PalimpsestError:
        raise
    except Exception as error:
        raise TrackingError("tracking", [f"MLflow at {uri} must answer, but: {one_line(error)}"]) from error


class KnownRun:
    """What is known of a run in MLflow without asking it again."""

    def __init__(self, run: Run) -> None:
        self.run_id: str = run.info.run_id
        self.status: str = run.info.status
        self.start_ms: int = run.info.start_time
        self.end_ms: int | None = run.info.end_time
        self.metrics: dict[str, float] = dict(run.data.metrics)
        self.params: dict[str, str] = dict(run.data.params)
        self.tags: dict[str, str] = dict(run.data.tags)

    @property
    def key(self) -> tuple[str, str, str]:
        """Level, trial and step: together they name one run of a sweep."""
        return self.tags["level"], self.tags.get("trial_id", ""), self.tags.get("step", "")


def known_runs(client: MlflowClient, experiment_id: str, level: str = "") -> Iterator[KnownRun]:
    """The runs of a sweep's experiment, oldest first; those of one `level`, or all that `sweeps.tracking` wrote."""
    token: str | None = None
    only = f"tags.level = '{level}'" if level else "tags.level != ''"
    while True:
        page = client.search_runs(
            [experiment_id], only, max_results=1000, order_by=["attributes.start_time ASC"], page_token=token
        )
        yield from map(KnownRun, page)
        token = page.token
        if not token:
            return
