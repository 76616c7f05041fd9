"""What the smoke tests share: a workspace, and scenes for trials without a sweep."""

from __future__ import annotations

import pytest

from tests.smoke.workspace import Workspace
from trainables.datasets import DataConfig, Splits, prepare


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="session")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    return prepare(DataConfig(kind="digits", sizes=(64, 16, 16)), tmp_path_factory.mktemp("data"))
