"""What the examples' tests train on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.trials import trial_config
from trainables.config import Runtime
from trainables.datasets import DataConfig, Splits, prepare
from trainables.trial import run_trial

Events = list[dict[str, Any]]


@pytest.fixture(scope="session")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    return prepare(DataConfig(kind="digits", sizes=(16, 8, 8)), tmp_path_factory.mktemp("data"))


@pytest.fixture
def chain(splits: Splits, tmp_path: Path) -> Callable[..., Events]:
    """Trains a chain on a few digit scenes, an iteration or two a step, and gives its events."""

    def train(method: str, detector: str = "gfl_r18_tiny", table_budget_gb: float = 8.0) -> Events:
        config = trial_config(splits.train.digest, method, detector)
        events: Events = []
        store = tmp_path / f"store-{table_budget_gb}"
        run_trial(config, Runtime(splits=splits, store=store, table_budget_gb=table_budget_gb), events.append)
        return events

    return train
