"""MLflow's Model Registry: each final model is a version; the alias `champion` names the best one.

A registered model belongs to one scenario and detector. A candidate that does not beat the champion is kept as a
version, with its score, and the alias stays where it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.connection import answered, connect
from sweeps.tracking import Scalar
from trainables.errors import CheckpointError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
FOLDER = "checkpoint"  # of the final run's artifacts
SCORED_BY = ("metric", "test_data")  # scores are compared only if these tags agree


@dataclass(frozen=True)
class Decision:
    """Whether a candidate becomes the champion, and why; true if it does."""

    promote: bool
    reason: str

    def __bool__(self) -> bool:
        return self.promote


@dataclass(frozen=True)
class Registration:
    """The version that now holds a candidate's checkpoint, and what became of the alias."""

    name: str
    version: str
    decision: Decision


def champion_name(scenario: str, detector: str) -> str:
    """The registered model's name, free of the `/`, `:` and `@` that model URIs give a meaning to.

    `digits/5+5` and `gfl_r50` give `digits-5+5.gfl_r50`.
    """
    return re.sub(r"[^\w.+-]+", "-", f"{scenario}.{detector}")


def decide(current: float | None, candidate: float) -> Decision:
    """The candidate replaces the champion only if its score is higher.

    Args:
        current: the champion's score, higher is better; None if there is no champion.
        candidate: the candidate's score by the same metric; nan never wins.
    """
    if not math.isfinite(candidate):
        return Decision(False, f"a champion needs a score, but got {candidate}")
    if current is None:
        return Decision(True, f"first champion, with {candidate:.4f}")
    if candidate > current:
        return Decision(True, f"{candidate:.4f} beats the champion's {current:.4f}")
    return Decision(False, f"{candidate:.4f} does not beat the champion's {current:.4f}")


def register(
    uri: str, name: str, run_id: str, checkpoint: Path, tags: Mapping[str, Scalar], score: float, metric: str
) -> Registration:
    """Register the checkpoint of a final run; it becomes the champion if it beats the present one.

    Said again for the same run (a promotion that was interrupted), it completes the version that is there.

    Args:
        uri: see `sweeps.connection.connect`.
        name: see `champion_name`.
        run_id: of the final run; the checkpoint becomes its artifact.
        checkpoint: the exported file. `models:/<name>@champion` then leads to the folder that holds it.
        tags: provenance: `config_id`, `scenario`, `detector`, `method`, `sweep`, `test_data` (of the annotations).
        score: by `metric`; higher is better. Scores by different metrics or on different data are never compared.
        metric: such as `ap_all`.

    Raises:
        CheckpointError: there is no such file.
        TrackingError: MLflow does not answer, or does not know the run.
    """
    if not checkpoint.is_file():
        raise CheckpointError(str(checkpoint), ["must be a checkpoint file, but there is none"])
    client = connect(uri)
    texts = {key: str(value) for key, value in {**tags, "metric": metric, "score": repr(float(score))}.items()}

    def write() -> Registration:
        version = _version_of(client, name, run_id) or _new_version(client, name, run_id, checkpoint, texts)
        champion = _champion(client, name)
        decision = _against(champion, version, score)
        if decision:
            client.set_registered_model_alias(name, CHAMPION, version.version)
        return Registration(name, str(version.version), decision)

    return answered(uri, write)


def _against(champion: ModelVersion | None, candidate: ModelVersion, score: float) -> Decision:
    if champion is None:
        return decide(None, score)
    if champion.version == candidate.version:
        return Decision(False, f"version {candidate.version} is the champion already")
    for tag in SCORED_BY:
        ours, theirs = candidate.tags.get(tag), champion.tags.get(tag)
        if ours != theirs or "score" not in champion.tags:
            why = f"version {champion.version} is champion by {tag} {theirs!r}, which cannot be compared with {ours!r}"
            return Decision(False, f"{why}; remove its alias to replace it")
    return decide(float(champion.tags["score"]), score)


def _new_version(
    client: MlflowClient, name: str, run_id: str, checkpoint: Path, tags: Mapping[str, str]
) -> ModelVersion:
    client.log_artifact(run_id, str(checkpoint), FOLDER)
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    source = f"{client.get_run(run_id).info.artifact_uri}/{FOLDER}"
    return client.create_model_version(name, source, run_id, tags=dict(tags))


def _version_of(client: MlflowClient, name: str, run_id: str) -> ModelVersion | None:
    return next(iter(client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")), None)


def _champion(client: MlflowClient, name: str) -> ModelVersion | None:
    if CHAMPION not in client.get_registered_model(name).aliases:
        return None
    return client.get_model_version_by_alias(name, CHAMPION)
