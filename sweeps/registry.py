"""MLflow's Model Registry: each final model is a version; the alias `champion` names the best one.

A registered model belongs to one scenario and detector. A candidate that does not beat the champion is kept as a
version, with its score, and the alias stays where it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from search_spaces.distributions import Scalar
from sweeps.connection import answered, connect
from sweeps.model_page import model_page, version_page
from sweeps.packaging import FOLDER, write_model
from sweeps.progress import shown
from trainables.errors import CheckpointError
from trainables.objectives import Objective

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
SCORED_BY = ("metric", "test_data")  # scores are compared only if these tags agree


@dataclass(frozen=True)
class Candidate:
    """A finally trained model.

    Attributes:
        name: of the registered model, see `champion_name`.
        run_id: of the final run; the model becomes its artifact.
        checkpoint: the exported file.
        tags: provenance: `config_id`, `scenario`, `detector`, `method`, `sweep`, `test_data` (of the annotations).
        facts, rows: what the version's page says, see `sweeps.model_page.version_page`.
        objective: what the score is of. Scores of different metrics or on different data are never compared.
        score: the objective's value; nan where it has none.
    """

    name: str
    run_id: str
    checkpoint: Path
    tags: Mapping[str, Scalar]
    facts: Mapping[str, str]
    rows: Mapping[str, Mapping[str, Sequence[float]]]
    objective: Objective
    score: float


@dataclass(frozen=True)
class Decision:
    """Whether a candidate becomes the champion, and why; true if it does."""

    promote: bool
    reason: str

    def __bool__(self) -> bool:
        return self.promote


@dataclass(frozen=True)
class Registration:
    """The version that now holds a candidate's model, and what became of the alias."""

    name: str
    version: str
    decision: Decision


def champion_name(scenario: str, detector: str) -> str:
    """The registered model's name, free of the `/`, `:` and `@` that model URIs give a meaning to.

    `digits/5+5` and `gfl_r18` give `digits-5+5.gfl_r18`.
    """
    return re.sub(r"[^\w.+-]+", "-", f"{scenario}.{detector}")


def decide(objective: Objective, current: float | None, candidate: float) -> Decision:
    """The candidate replaces the champion only if its score is better.

    Args:
        objective: what the scores are values of.
        current: the champion's score; None if there is no champion.
        candidate: the candidate's score; nan never wins.
    """
    if not math.isfinite(candidate):
        return Decision(False, f"a champion needs a score, but got {candidate}")
    told = f"{objective.name} {shown(objective.metric, candidate)}"
    if current is None:
        return Decision(True, f"first champion, with {told}")
    better = candidate > current if objective.direction == "max" else candidate < current
    than = f"the champion's {shown(objective.metric, current)}"
    return Decision(better, f"{told} {'beats' if better else 'does not beat'} {than}")


def register(uri: str, candidate: Candidate) -> Registration:
    """Register the model of a final run; it becomes the champion if it beats the present one.

    Said again for the same run (a promotion that was interrupted), it completes the version that is there.
    `mlflow.pyfunc.load_model("models:/<name>@champion")` then loads it, see `trainables.inference.ImageDetector`.

    Args:
        uri: see `sweeps.connection.connect`.

    Raises:
        CheckpointError: there is no such file.
        TrackingError: MLflow does not answer, or does not know the run.
    """
    if not candidate.checkpoint.is_file():
        raise CheckpointError(str(candidate.checkpoint), ["must be a checkpoint file, but there is none"])
    client, name = connect(uri), candidate.name

    def write() -> Registration:
        version = _version_of(client, name, candidate.run_id) or _new_version(client, candidate)
        page = version_page(name, str(version.version), candidate.facts, candidate.rows)
        client.update_model_version(name, version.version, page)
        decision = _against(_champion(client, name), version, candidate)
        if decision:
            client.set_registered_model_alias(name, CHAMPION, version.version)
        return Registration(name, str(version.version), decision)

    return answered(uri, write)


def _against(champion: ModelVersion | None, version: ModelVersion, candidate: Candidate) -> Decision:
    if champion is None:
        return decide(candidate.objective, None, candidate.score)
    if champion.version == version.version:
        return Decision(False, f"version {version.version} is the champion already")
    for tag in SCORED_BY:
        ours, theirs = version.tags.get(tag), champion.tags.get(tag)
        if ours != theirs or "score" not in champion.tags:
            why = f"version {champion.version} is champion by {tag} {theirs!r}, which cannot be compared with {ours!r}"
            return Decision(False, f"{why}; remove its alias to replace it")
    return decide(candidate.objective, float(champion.tags["score"]), candidate.score)


def _new_version(client: MlflowClient, candidate: Candidate) -> ModelVersion:
    name, run_id, tags = candidate.name, candidate.run_id, candidate.tags
    with TemporaryDirectory() as temporary:
        folder = Path(temporary, FOLDER)
        write_model(candidate.checkpoint, run_id, folder)
        client.log_artifacts(run_id, str(folder), FOLDER)
    if not client.search_registered_models(f"name = '{name}'"):
        page = model_page(name, str(tags["scenario"]), str(tags["detector"]))
        client.create_registered_model(name, description=page)
    source = f"{client.get_run(run_id).info.artifact_uri}/{FOLDER}"
    scored = {"metric": candidate.objective.name, "score": repr(float(candidate.score))}
    texts = {key: str(value) for key, value in {**tags, **scored}.items()}
    return client.create_model_version(name, source, run_id, tags=texts)


def _version_of(client: MlflowClient, name: str, run_id: str) -> ModelVersion | None:
    return next(iter(client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")), None)


def _champion(client: MlflowClient, name: str) -> ModelVersion | None:
    if CHAMPION not in client.get_registered_model(name).aliases:
        return None
    return client.get_model_version_by_alias(name, CHAMPION)
