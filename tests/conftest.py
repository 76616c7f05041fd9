"""What holds for every test: how Ray and MLflow behave in this process tree, and which tiers run."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

# Ray reads these when it is imported, so they are set before any test module is. With its defaults, `uv run pytest`
# would start every worker through uv, and a first local cluster would write a token into the home folder.
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ.setdefault("OMP_NUM_THREADS", "1")

ONLY_BY_NAME = {"chaos", "long"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tiers that `-m` does not name, so that `-m "not smoke"` stays quick, and skip what needs a GPU."""
    unnamed = ONLY_BY_NAME - set(re.findall(r"\w+", config.option.markexpr))
    config.hook.pytest_deselected(items=[item for item in items if _marked(item, unnamed)])
    items[:] = [item for item in items if not _marked(item, unnamed)]
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu and not _sees_gpu():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="torch sees no GPU"))


def _marked(item: pytest.Item, tiers: set[str]) -> bool:
    return any(item.get_closest_marker(tier) for tier in tiers)


def _sees_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Leave what the tests imported to itself: mmengine has all garbage collected for every data set."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def nothing_left_where_pytest_was_started() -> Iterator[None]:
    """Tests write into folders of their own; hidden files are pytest's and hypothesis's."""
    before = set(Path.cwd().glob("[!.]*"))
    yield
    assert set(Path.cwd().glob("[!.]*")) == before
