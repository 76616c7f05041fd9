"""Every method trains a chain: with tables and without the same bits, each with its own losses in the records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.smoke.chains import bits, ignore, runtime
from tests.trainables.trials import trial_config
from trainables.catalog import misfit
from trainables.config import TrialConfig
from trainables.datasets import Splits
from trainables.scenarios import custom_scenario, named_scenario
from trainables.trial import run_trial

pytestmark = pytest.mark.smoke

CHAIN = custom_scenario([["0", "1", "2", "3"], ["7", "8", "9"], ["4", "5", "6"]])
LOSSES = {
    "ld": {"loss_ld", "loss_ld_vlr", "loss_kd"},
    "lwf": {"loss_lwf"},
    "sid": {"loss_sid_cls", "loss_sid_feat"},
    "latent": {"loss_sid_cls", "loss_sid_feat"},
    "ilyolox": {"loss_obj", "loss_cd_soft", "loss_ld_iou", "n_pseudo"},
    "replay": set(),
    "latent_replay": set(),
    "pseudo_label": {"n_pseudo"},
    "replay-sid": {"loss_sid_cls", "loss_sid_feat"},
    "replay-pseudo_label-ld": {"loss_ld", "n_pseudo"},
    "pseudo_label-erd": {"loss_dist_cls", "n_pseudo"},
}


def config_of(splits: Splits, method: str, **changes: Any) -> TrialConfig:
    detector = "gfl_r18_tiny" if misfit(method, "gfl_r18_tiny") is None else "yoloy_tiny"
    detector = "nanodet_tiny" if "latent" in method else detector
    config = trial_config(splits.train.digest, method, detector, scenario=CHAIN)
    return replace(config, params=config.params | changes)


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
    assert tables == (method in ("ld", "lwf", "sid", "latent", "ilyolox") or method.startswith("pseudo_label"))
    assert (tmp_path / "with" / "latents").exists() == method.startswith("latent")
    without = run_trial(config, runtime(splits, tmp_path / "without", table_budget_gb=0.0), ignore)
    assert bits(without) == bits(results)


def test_methods_that_need_the_same_share_a_table(splits: Splits, tmp_path: Path) -> None:
    for method in ("lwf", "ld", "sid"):
        run_trial(config_of(splits, method), runtime(splits, tmp_path), ignore)
    assert len(list((tmp_path / "responses").iterdir())) == 2  # logits alone, and with the towers


@pytest.mark.parametrize("method", ["finetune", "replay", "pseudo_label", "lwf", "sid", "replay-ilyolox"])
def test_methods_of_any_detector_run_on_yolox_too(splits: Splits, tmp_path: Path, method: str) -> None:
    events: list[dict[str, Any]] = []
    config = replace(config_of(splits, method), detector="yoloy_tiny")
    run_trial(config, runtime(splits, tmp_path), events.append)
    assert "loss_obj" in events[-1]["facts"]
    assert len(events[-1]["classes"]) == 10


def test_five_steps_go_on_where_they_were(splits: Splits, tmp_path: Path) -> None:
    config = replace(config_of(splits, "ilyolox"), scenario=named_scenario("digits/2+2+2+2+2"))
    events: list[dict[str, Any]] = []

    class DiedError(Exception):
        pass

    def until_the_third(event: dict[str, Any]) -> None:
        if event["step"] == 3:
            raise DiedError

    with pytest.raises(DiedError):
        run_trial(config, runtime(splits, tmp_path / "one"), until_the_third)
    found = run_trial(config, runtime(splits, tmp_path / "one"), events.append)
    assert bits(found) == bits(run_trial(config, runtime(splits, tmp_path / "other"), ignore))
    assert [event["step"] for event in events] == [0, 1, 2, 3, 4]
    for step, event in enumerate(events):
        assert len(event["classes"]) == 2 * (step + 1)
        assert len(event["ap_matrix"]["ap"]) == step + 1
        assert {f"ap_step_{number}" for number in range(1, step + 2)} <= event["metrics"].keys()
        assert {"time_train_s", "lr_effective", "peak_memory_mb"} <= event["facts"].keys()


def test_replayed_latents_are_as_good_as_their_images(splits: Splits, tmp_path: Path) -> None:
    images = config_of(splits, "replay-latent", w_cls=0.0, w_feat=0.0)
    found, events = {}, []
    for dtype in ("float32", "int8"):
        latents = config_of(splits, "latent_replay", dtype=dtype)
        found[dtype] = run_trial(latents, runtime(splits, tmp_path), events.append)
    assert bits(found["float32"]) == bits(run_trial(images, runtime(splits, tmp_path), ignore))
    assert bits(found["int8"]) != bits(found["float32"])
    large, small = (events[last]["facts"]["replay_bytes"] for last in (2, 5))
    assert 3.5 < large / small < 4.0  # of 4 with the scales


def test_without_a_buffer_replay_is_fine_tuning_to_the_bit(splits: Splits, tmp_path: Path) -> None:
    found, plain = (
        run_trial(config, runtime(splits, tmp_path), ignore)
        for config in (config_of(splits, "replay", buffer_size=0), config_of(splits, "finetune"))
    )
    assert bits(found) == bits(plain)
