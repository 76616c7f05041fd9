"""Fresh MLflow databases, copied from one that was migrated once: the migration takes seconds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sweeps.connection import connect


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    connect(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def database(tmp_path: Path, empty_database: Path) -> Path:
    return Path(shutil.copy(empty_database, tmp_path / "mlflow.db"))


@pytest.fixture
def uri(database: Path) -> str:
    return f"sqlite:///{database}"


@pytest.fixture(scope="module")
def shared_uri(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> str:
    """A database that one fixture of a module fills, and its tests only read."""
    return f"sqlite:///{shutil.copy(empty_database, tmp_path_factory.mktemp('shared') / 'mlflow.db')}"


@pytest.fixture
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("PALIMPSEST_STORAGE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
