"""What the examples' tests train on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from search_spaces.optim import TinyOptimParams
from trainables.catalog import METHODS
from trainables.config import Runtime, TrialConfig
from trainables.datasets import DataConfig, Splits, prepare
from trainables.scenarios import named_scenario
from trainables.trial import run_trial

Events = list[dict[str, Any]]


@pytest.fixture(scope="session")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    return prepare(DataConfig(kind="digits", sizes=(16, 8, 8)), tmp_path_factory.mktemp("data"))


@pytest.fixture
def chain(splits: Splits, tmp_path: Path) -> Callable[..., Events]:
    """Trains a chain on a few digit scenes, an iteration or two a step, and gives its events."""

    def train(method: str, detector: str = "gfl_r18_tiny", table_budget_gb: float = 8.0, **changes: Any) -> Events:
        config = TrialConfig(
            scenario=named_scenario("digits/5+5"), data=splits.train.digest, detector=detector, method=method,
            params=asdict(METHODS[method].params(**changes)), optim=asdict(TinyOptimParams()), base_epochs=1, epochs=1,
            batch_size=8,
        )  # fmt: skip
        events: Events = []
        store = tmp_path / f"store-{table_budget_gb}"
        run_trial(config, Runtime(splits=splits, store=store, table_budget_gb=table_budget_gb), events.append)
        return events

    return train
