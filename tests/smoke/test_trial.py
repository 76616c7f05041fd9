"""A trial is a function of its configuration: run twice, interrupted, observed or not, it gives the same bits."""

from __future__ import annotations

import hashlib
import multiprocessing
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from search_spaces.erd import PRESETS, ERDParams
from search_spaces.finetune import FinetuneParams
from search_spaces.params import floor
from tests.smoke.chains import bits, ignore, runtime
from tests.trainables.trials import trial_config
from trainables.catalog import DETECTORS
from trainables.config import Segment, TrialConfig
from trainables.datasets import Splits
from trainables.errors import CheckpointError, TrainingError
from trainables.export import export, load_exported
from trainables.history import adopt_state, checkpoint_folder, read_history
from trainables.pictures import PANEL_PX
from trainables.records import known_picture
from trainables.scenarios import custom_scenario
from trainables.step import StepResult
from trainables.store import Store
from trainables.trial import run_trial

pytestmark = pytest.mark.smoke


@pytest.fixture(scope="module")
def config(splits: Splits) -> TrialConfig:
    return trial_config(splits.train.digest, epochs=3)


@pytest.fixture(scope="module")
def undisturbed(config: TrialConfig, splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return bits(run_trial(config, runtime(splits, tmp_path_factory.mktemp("store")), ignore))


def test_twice_gives_the_same_bits_observed_or_not(
    config: TrialConfig, splits: Splits, tmp_path: Path, undisturbed: list[Any]
) -> None:
    events: list[dict[str, Any]] = []
    observed = runtime(splits, tmp_path, report_at=(1, 2))
    assert bits(run_trial(config, observed, events.append)) == undisturbed
    assert [event["progress"] for event in events] == [0, 1, 2, 3]


def test_killed_in_mid_step_and_run_again_gives_the_same_bits(
    config: TrialConfig, splits: Splits, tmp_path: Path, undisturbed: list[Any]
) -> None:
    state = Store(tmp_path).partial("steps", config.step_identity(1)) / "state.pt"
    process = multiprocessing.get_context("spawn").Process(
        target=run_trial, args=(config, runtime(splits, tmp_path), print)
    )
    process.start()
    deadline = time.monotonic() + 120
    while not state.exists() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.join()
    assert state.exists(), "the trial must have been killed inside its second step"
    assert bits(run_trial(config, runtime(splits, tmp_path), ignore)) == undisturbed
    assert not state.exists()


def test_without_tables_the_bits_are_the_same(
    config: TrialConfig, splits: Splits, tmp_path: Path, undisturbed: list[Any]
) -> None:
    without = runtime(splits, tmp_path, table_budget_gb=0.0)
    results = run_trial(config, without, ignore)
    assert {path.name for path in tmp_path.iterdir()} & {"images", "targets", "responses"} == set()
    assert [result.facts["cache_bytes"] for result in results] == [0, 0]
    assert bits(results) == undisturbed


def test_a_chain_of_three_steps_learns_from_each_teacher_with_and_without_tables(
    config: TrialConfig, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = DETECTORS["gfl_r18_tiny"]
    flipping = replace(tiny.recipe, flip=0.5)
    monkeypatch.setitem(DETECTORS, "gfl_r18_tiny", replace(tiny, recipe=flipping))
    groups = [["0", "1", "2", "3"], ["7", "8", "9"], ["4", "5", "6"]]
    chain = replace(config, scenario=custom_scenario(groups), epochs=1, response_dtype="float16")
    events: list[dict[str, Any]] = []
    results = run_trial(chain, runtime(splits, tmp_path / "with"), events.append)
    rows = [torch.load(result.weights, weights_only=True)["bbox_head.gfl_cls.weight"].shape[0] for result in results]
    assert rows == [4, 7, 10]
    assert [len(event["classes"]) for event in events] == [4, 7, 10]
    pictures = [cv2.imread(str(known_picture(tmp_path / "with", event["scored"]))) for event in events]
    assert [image.shape[1] // PANEL_PX for image in pictures] == [2, 3, 3]  # the base step had no teacher
    assert [event["facts"]["params_teacher"] > 0 for event in events] == [False, True, True]
    held = [4 * event["facts"]["params_teacher"] / 1e6 for event in events]
    assert [event["facts"]["extra_memory_mb"] for event in events] == held
    assert ["time_saved_responses_s" in event["facts"] for event in events] == [False, True, True]
    (_,) = (tmp_path / "with" / "responses").iterdir()  # a later step's teacher is the trial's own, and so its table
    without = run_trial(chain, runtime(splits, tmp_path / "without", table_budget_gb=0.0), ignore)
    assert bits(without) == bits(results)


def test_a_trial_that_shares_a_looser_floor_gives_the_same_bits(
    config: TrialConfig, splits: Splits, tmp_path: Path, undisturbed: list[Any]
) -> None:
    values = {name: [value] for name, value in config.params.items()} | {"alpha_cls": [0.5, 3.5], "alpha_box": [1, 3]}
    shared = runtime(splits, tmp_path, floors={"erd": floor(ERDParams, values)})
    assert bits(run_trial(config, shared, ignore)) == undisturbed


def test_a_damaged_table_is_built_anew_and_the_bits_are_the_same(
    config: TrialConfig, splits: Splits, tmp_path: Path
) -> None:
    brief = replace(config, epochs=1)
    first = bits(run_trial(brief, runtime(splits, tmp_path), ignore))
    tables = {path: path.read_bytes() for path in tmp_path.glob("*/*/*.bin") if path.stat().st_size}
    assert {path.parent.parent.name for path in tables} == {"images", "targets", "responses"}
    for path, content in tables.items():
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for kind in ("steps", "scores"):
        shutil.rmtree(tmp_path / kind)
    assert bits(run_trial(brief, runtime(splits, tmp_path), ignore)) == first
    assert {path: path.read_bytes() for path in tables} == tables


def test_what_a_process_did_before_changes_no_bit(
    config: TrialConfig, splits: Splits, tmp_path: Path, undisturbed: list[Any]
) -> None:
    brief = replace(config, epochs=1)
    others = [
        replace(brief, method="finetune", params=asdict(FinetuneParams())),
        replace(brief, seed=5, base_seed=5, params=asdict(PRESETS["erd_2023"])),
        replace(brief, scenario=custom_scenario([["9", "8", "7"], ["1", "2"]]), response_dtype="float16"),
    ]
    for number, other in enumerate(others):
        run_trial(other, runtime(splits, tmp_path / "others", report_at=(number,)), ignore)
    assert bits(run_trial(config, runtime(splits, tmp_path / "own"), ignore)) == undisturbed


def test_averaged_weights_stay_nearer_to_where_they_began(config: TrialConfig, splits: Splits, tmp_path: Path) -> None:
    brief = replace(config, epochs=2)
    averaged = replace(brief, ema_momentum=0.01)
    with_state = Store(tmp_path).partial("steps", averaged.step_identity(1)) / "state.pt"

    def stop_once(event: dict[str, Any]) -> None:
        if event["progress"] == 1 and not stopped:
            stopped.append(torch.load(with_state, weights_only=True)["average"])
            raise KeyboardInterrupt

    stopped: list[dict[str, torch.Tensor]] = []
    with pytest.raises(KeyboardInterrupt):
        run_trial(averaged, runtime(splits, tmp_path, report_at=(1,)), stop_once)
    resumed = run_trial(averaged, runtime(splits, tmp_path), ignore)
    whole = run_trial(averaged, runtime(splits, tmp_path / "again"), ignore)
    assert stopped
    assert bits(resumed) == bits(whole)
    plain = run_trial(brief, runtime(splits, tmp_path / "again"), ignore)
    assert 0 < way(whole) < way(plain)


def way(results: list[StepResult]) -> float:
    """How far a layer's weights went in the last step."""
    start, end = (torch.load(result.weights, weights_only=True)["neck.fpn_convs.0.conv.weight"] for result in results)
    return float((end - start).norm())


def test_an_export_is_the_student_alone_and_loads_into_a_fresh_detector(
    config: TrialConfig, splits: Splits, tmp_path: Path
) -> None:
    brief = replace(config, epochs=1)
    weights = run_trial(brief, runtime(splits, tmp_path / "store"), ignore)[-1].weights
    path = export(brief, weights, tmp_path / "export")
    assert path.name == f"gfl_r18_tiny-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth"
    detector = load_exported(path)
    assert detector.dataset_meta["classes"] == tuple("0123456789")
    trained = torch.load(weights, weights_only=True)
    assert {name: tensor.numpy().tobytes() for name, tensor in detector.state_dict().items()} == {
        name: tensor.numpy().tobytes() for name, tensor in trained.items()
    }
    with pytest.raises(CheckpointError, match="must be an exported checkpoint"):
        load_exported(weights)


def test_a_loss_that_is_not_finite_names_step_iteration_and_loss(
    config: TrialConfig, splits: Splits, tmp_path: Path
) -> None:
    wild = replace(config, optim={**config.optim, "lr_scale": 1e30, "warmup_iters": 0})
    with pytest.raises(TrainingError, match=r"step 2, iteration \d+: must be finite, but loss_\w+ is (nan|inf)"):
        run_trial(wild, runtime(splits, tmp_path), ignore)
    assert not Store(tmp_path).path("steps", wild.step_identity(1)).exists()


def changed(config: TrialConfig) -> TrialConfig:
    """`config` after an epoch under another rate and another weight of its loss."""
    optim = {**config.optim, "lr_scale": 0.3, "weight_decay": 0.01}
    return replace(config, schedule=(Segment(1, {**config.params, "lambda_cls": 5.0}, optim),))


def test_a_schedule_is_what_a_trial_that_goes_on_from_another_has_behind_it(
    config: TrialConfig, splits: Splits, tmp_path: Path, undisturbed: list[Any]
) -> None:
    whole = bits(run_trial(changed(config), runtime(splits, tmp_path / "whole"), ignore))
    assert whole[1] != undisturbed[1]
    (segment,) = changed(config).schedule
    donor, where = (
        replace(config, params=segment.params, optim=segment.optim),
        runtime(splits, tmp_path, report_at=(1,)),
    )
    copy = tmp_path / "copy"

    def copied_after_an_epoch(event: dict[str, Any]) -> None:
        events.append(event)
        if event["progress"] == 1:
            with checkpoint_folder(donor, where, events) as folder:
                shutil.copytree(folder, copy)

    events: list[dict[str, Any]] = []
    run_trial(donor, where, copied_after_an_epoch)
    history = read_history(copy)
    heir = history.continued(config)
    assert (history.progress, heir) == (1, changed(config))
    adopt_state(copy, heir, where, history.progress)
    told: list[int] = []
    heirs = run_trial(heir, where, lambda event: told.append(event["progress"]))
    assert bits(heirs) == whole
    assert heirs[1].facts["images_seen"] == 2 * events[-1]["facts"]["images_seen"] / 3  # two of three epochs


def test_who_goes_on_from_itself_is_who_it_was(config: TrialConfig, splits: Splits, tmp_path: Path) -> None:
    with checkpoint_folder(config, runtime(splits, tmp_path), [{"progress": 2}]) as folder:
        assert read_history(folder).continued(config) == config
