"""How MLflow's pages show a sweep's trials: a saved view of them, and the links that lead to it."""

from __future__ import annotations

import json

VIEW_TAG = "mlflow.sharedViewState.trials"
"""The tag of an experiment in which MLflow 3 keeps a view called `trials`, as its button `Share view` does."""
VIEW = json.dumps({
    "searchFilter": "tags.role = 'search'",
    "orderByKey": "metrics.`ap_all`",
    "orderByAsc": False,
    "selectedColumns": [
        "metrics.`ap_all`", "metrics.`ap_old`", "metrics.`ap_new`", "metrics.`forgetting`", "tags.`verdict`",
    ],
    "chartsSearchFilter": "^(ap_all|ap_old|ap_new|forgetting)$",
})  # fmt: skip
"""The search's trials, the best first; what MLflow does not know in it, it leaves out."""


def links(experiment_id: str) -> str:
    """Markdown: the trials as a table and as charts."""
    # Without the type of work MLflow's pages are those of language models.
    view = f"viewStateShareKey={VIEW_TAG.rpartition('.')[2]}&workflowType=machine_learning"
    runs = f"#/experiments/{experiment_id}/runs?{view}"
    return f"[Trials, the highest AP first]({runs}) | [AP and forgetting by step]({runs}&compareRunsMode=CHART)"
