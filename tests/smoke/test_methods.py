"""Every method trains a chain: with tables and without the same bits, each with its own losses in the records."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from search_spaces.optim import TinyOptimParams
from tests.smoke.test_trial import bits, runtime
from trainables.catalog import METHODS
from trainables.config import TrialConfig
from trainables.datasets import DataConfig, Splits, prepare
from trainables.scenarios import custom_scenario
from trainables.trial import run_trial

pytestmark = pytest.mark.smoke

CHAIN = custom_scenario([["0", "1", "2", "3"], ["7", "8", "9"], ["4", "5", "6"]])
LOSSES = {
    "ld": {"loss_ld", "loss_ld_vlr", "loss_kd"},
    "lwf": {"loss_lwf"},
    "sid": {"loss_sid_cls", "loss_sid_feat"},
    "replay": set(),
    "pseudo_label": {"n_pseudo"},
    "replay-sid": {"loss_sid_cls", "loss_sid_feat"},
    "replay-pseudo_label-ld": {"loss_ld", "n_pseudo"},
    "pseudo_label-erd": {"loss_dist_cls", "n_pseudo"},
}


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    return prepare(DataConfig(kind="digits", sizes=(64, 16, 16)), tmp_path_factory.mktemp("data"))


def config_of(splits: Splits, method: str, **changes: Any) -> TrialConfig:
    params = asdict(METHODS[method].presets[METHODS[method].default_preset]) | changes
    return TrialConfig(
        scenario=CHAIN, data=splits.train.digest, detector="gfl_r18_tiny", method=method, params=params,
        optim=asdict(TinyOptimParams()), base_epochs=1, epochs=1, batch_size=8,
    )  # fmt: skip


@pytest.mark.parametrize("method", LOSSES)
def test_a_chain_learns_with_tables_and_without_to_the_same_bits(splits: Splits, tmp_path: Path, method: str) -> None:
    events: list[dict[str, Any]] = []
    config = config_of(splits, method)
    results = run_trial(config, runtime(splits, tmp_path / "with"), events.append)
    assert [len(event["classes"]) for event in events] == [4, 7, 10]
    for event in events[1:]:
        assert LOSSES[method] <= event["facts"].keys()
        assert ("replay_bytes" in event["facts"]) == ("replay" in method)
    tables = (tmp_path / "with" / "responses").exists()
    assert tables == (method in ("ld", "lwf", "sid"))
    without = run_trial(config, runtime(splits, tmp_path / "without", table_budget_gb=0.0), lambda event: None)
    assert bits(without) == bits(results)


def test_methods_that_need_the_same_share_a_table(splits: Splits, tmp_path: Path) -> None:
    for method in ("lwf", "ld", "sid"):
        run_trial(config_of(splits, method), runtime(splits, tmp_path), lambda event: None)
    assert len(list((tmp_path / "responses").iterdir())) == 2  # logits alone, and with the towers


def test_without_a_buffer_replay_is_fine_tuning_to_the_bit(splits: Splits, tmp_path: Path) -> None:
    found, plain = (
        run_trial(config, runtime(splits, tmp_path), lambda event: None)
        for config in (config_of(splits, "replay", buffer_size=0), config_of(splits, "finetune"))
    )
    assert bits(found) == bits(plain)
