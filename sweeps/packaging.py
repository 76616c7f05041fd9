"""An exported checkpoint as an MLflow model of the `pyfunc` flavor; `trainables.pyfunc` loads it."""

from __future__ import annotations

import logging
from pathlib import Path

from trainables.environment import package_versions

FOLDER = "model"  # of the final run's artifacts
GREY_PNG = (  # 64 x 64 px
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAAAAACPAi4CAAAAKUlEQVR42u3MQREAAAwCIKMb3RD77SAA6VEEAoFAIBAIBAKBQCAQfA8G320AeXC6"
    "efoAAAAASUVORK5CYII="
)


def write_model(checkpoint: Path, run_id: str, folder: Path) -> None:
    """Write an exported checkpoint as an MLflow model into the new folder `folder`. Nothing is pickled."""
    from mlflow.models import Model, ModelSignature
    from mlflow.pyfunc import save_model
    from mlflow.types.schema import Array, ColSpec, DataType, Schema

    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)  # it misses pip, where uv made this one
    versions = package_versions()
    # Palimpsest is on no package index: a requirement would install whatever has its name there.
    own = {name: versions.pop(name) for name in ("palimpsest",) if name in versions}
    numbers = Array(DataType.double)
    save_model(
        folder,
        loader_module="trainables.pyfunc",
        data_path=str(checkpoint),
        mlflow_model=Model(artifact_path=FOLDER, run_id=run_id),
        signature=ModelSignature(
            Schema([ColSpec(DataType.string, "image")]),
            Schema([
                ColSpec(Array(numbers), "boxes"), ColSpec(numbers, "scores"), ColSpec(Array(DataType.string), "classes")
            ]),
        ),
        input_example=[{"image": GREY_PNG}],
        pip_requirements=[f"{name}=={version}" for name, version in versions.items()],
        metadata=own,
    )  # fmt: skip
