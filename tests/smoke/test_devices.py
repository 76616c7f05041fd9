"""A trial on two devices: two gloo ranks of Ray Train, against one process at the same batch in all.

Its batch norms are frozen: a CPU's are not synchronised, as a GPU's are. Its batches are so large that no normaliser
is clamped: max(1, mean over ranks) would be another number then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sweeps.cluster import Releasing
from sweeps.spec_file import Resources
from tests.trainables.trials import trial_config
from trainables.config import Runtime, TrialConfig
from trainables.datasets import DataConfig, Splits, prepare
from trainables.errors import TrainingError
from trainables.journal import read
from trainables.objectives import Aim, Objective
from trainables.store import Store
from trainables.tune import PROGRESS, chain_task, events_file, tune_trial

pytestmark = pytest.mark.smoke
WEIGHTS_TOLERANCE = 2e-3  # relative: sums in another order, which AdamW makes more of
AP_TOLERANCE = 0.01


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    return prepare(DataConfig(kind="digits", sizes=(96, 16, 16)), tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def together(splits: Splits) -> TrialConfig:
    return trial_config(
        splits.train.digest, "latent", base_epochs=4, epochs=2, batch_size=16, freeze_base=True, devices=2
    )


def trained(config: TrialConfig, store: Path) -> torch.Tensor:
    """All weights of neck and head after the base step."""
    folder = Store(store).find("steps", config.step_identity(0))
    assert folder is not None
    state = torch.load(folder / "weights.pt", weights_only=True)
    return torch.cat([value.flatten() for name, value in state.items() if name.startswith(("neck", "bbox_head"))])


def test_two_ranks_train_what_one_process_does(ray: Any, together: TrialConfig, splits: Splits, tmp_path: Path) -> None:
    runtime = Runtime(splits=splits, store=tmp_path, report_at=(1,))
    alone = replace(together, batch_size=32, devices=1)
    ranks, process = chain_task(together, runtime), chain_task(alone, runtime)
    assert [event["progress"] for event in ranks] == [event["progress"] for event in process] == [0, 1, 2]
    for one, other in zip(ranks, process, strict=True):
        for name, value in other["metrics"].items():
            if not name.startswith(("loss", "n_")):  # of its own share alone
                assert one["metrics"][name] == pytest.approx(value, abs=AP_TOLERANCE), name
    told, known = ranks[-1]["facts"], process[-1]["facts"]
    assert [told[name] for name in ("lr_effective", "batch_total", "images_seen")] == [
        known[name] for name in ("lr_effective", "batch_total", "images_seen")
    ]
    assert told["cache_bytes"] == known["cache_bytes"] > 0
    own, theirs = (trained(config, tmp_path) for config in (alone, together))
    assert (own - theirs).norm() < WEIGHTS_TOLERANCE * own.norm()


@pytest.mark.long
def test_a_rank_that_cannot_go_on_ends_the_trial_in_its_own_words(
    ray: Any, together: TrialConfig, splits: Splits, tmp_path: Path
) -> None:
    burst = replace(together, optim=together.optim | {"lr_scale": 1e30})
    with pytest.raises(TrainingError, match=r"step 2, iteration .*must be finite"):
        chain_task(burst, Runtime(splits=splits, store=tmp_path))


@pytest.mark.long
def test_tune_hears_the_ranks_and_stops_them(ray: Any, together: TrialConfig, splits: Splits, tmp_path: Path) -> None:
    from ray import tune

    runtime = Runtime(splits=splits, store=tmp_path / "store", report_at=(1,))
    trials, aim = tmp_path / "trials", Aim((Objective("ap_all"),))
    trial = tune.with_parameters(tune_trial, bases={"latent": together}, runtime=runtime, aim=aim, folder=trials)
    results = tune.Tuner(
        tune.with_resources(trial, Resources(cpu=2, gpu=2).of_process),
        param_space={"optim": {"lr_scale": tune.grid_search([0.5, 1.0])}},
        tune_config=tune.TuneConfig(max_concurrent_trials=1),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(tmp_path),
            verbose=0,
            callbacks=[Releasing(trials)],
            stop=lambda trial, result: result["config"]["optim"]["lr_scale"] == 0.5 and result[PROGRESS] == 1,
        ),
    ).fit()
    assert results.num_errors == 0
    assert [(result.metrics or {})[PROGRESS] for result in results] == [1, 2]
    last = (results[1].metrics or {})["trial_id"]
    assert [event["progress"] for event in read(events_file(trials, last))] == [0, 1, 2]
