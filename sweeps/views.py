"""How MLflow's pages show a sweep's trials: saved views of them, and the links that lead there."""

from __future__ import annotations

import json

_METRICS = ("ap_all", "ap_old", "ap_new", "forgetting")


def _view(search_filter: str) -> str:
    """The best first; what MLflow does not know in it, it leaves out."""
    return json.dumps({
        "searchFilter": search_filter,
        "orderByKey": "metrics.`ap_all`",
        "orderByAsc": False,
        "selectedColumns": [*(f"metrics.`{name}`" for name in _METRICS), "tags.`verdict`"],
        "chartsSearchFilter": f"^({'|'.join(_METRICS)})$",
    })  # fmt: skip


VIEW_TAGS = {
    "mlflow.sharedViewState.finished": _view("tags.role = 'search' and tags.verdict = 'finished'"),
    "mlflow.sharedViewState.trials": _view("tags.role = 'search'"),
}
"""The tags of an experiment in which MLflow 3 keeps views by their names, as its button `Share view` does."""


def links(experiment_id: str) -> str:
    """Markdown: the finished trials as a table, and all as charts."""

    def runs(view: str) -> str:
        # Without the type of work MLflow's pages are those of language models.
        return f"#/experiments/{experiment_id}/runs?viewStateShareKey={view}&workflowType=machine_learning"

    table, charts = runs("finished"), f"{runs('trials')}&compareRunsMode=CHART"
    return f"[Finished trials, the highest AP first]({table}) | [AP and forgetting by step]({charts})"
