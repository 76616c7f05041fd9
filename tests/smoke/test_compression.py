"""A larger detector, and a chain of them, teaches a small one the same classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.smoke.chains import bits, ignore, runtime
from tests.trainables.trials import trial_config
from trainables.config import TrialConfig
from trainables.datasets import Splits
from trainables.errors import CheckpointError
from trainables.export import export_student
from trainables.scenarios import named_scenario
from trainables.trial import run_first_step, run_trial

pytestmark = pytest.mark.smoke
ALL = named_scenario("digits/10")


def alone(splits: Splits, **changes: Any) -> TrialConfig:
    """A detector of all classes that is trained by itself."""
    return trial_config(splits.train.digest, "finetune", scenario=ALL, epochs=2, **changes)


def taught(splits: Splits, teacher: TrialConfig | None, **changes: Any) -> TrialConfig:
    """A student of `teacher`."""
    return trial_config(splits.train.digest, "ld", scenario=ALL, epochs=2, teacher=teacher, **changes)


def larger(splits: Splits) -> TrialConfig:
    return alone(splits, detector="gfl_r18_small").joint(0)


def test_a_student_learns_from_a_larger_teacher_with_tables_and_without_to_the_same_bits(
    splits: Splits, tmp_path: Path
) -> None:
    config, events = taught(splits, larger(splits)), list[dict[str, Any]]()
    found = run_trial(config, runtime(splits, tmp_path / "with", report_at=(1,)), events.append)
    assert [(event["progress"], event["first_step"], "classes" in event) for event in events] == [
        (1, 0, False), (2, 0, True),
    ]  # fmt: skip
    facts = events[-1]["facts"]
    assert {"loss_ld", "loss_ld_vlr", "loss_kd"} <= facts.keys()
    assert facts["params_teacher"] > 3 * facts["params_total"]
    assert not {"forgetting", "rel_gap"} & {k for k, v in events[-1]["metrics"].items() if v == v}
    assert (tmp_path / "with" / "responses").exists()
    live = run_trial(config, runtime(splits, tmp_path / "live", table_budget_gb=0.0), ignore)
    assert bits(live) == bits(found)
    without = run_trial(alone(splits), runtime(splits, tmp_path / "with"), ignore)
    assert bits(without) != bits(found)


def test_without_a_weight_the_student_is_alone_to_the_bit(splits: Splits, tmp_path: Path) -> None:
    config = taught(splits, larger(splits))
    config = replace(config, params={**config.params, "w_ld": 0.0, "w_vlr": 0.0, "w_kd": 0.0})
    place = runtime(splits, tmp_path)
    assert bits(run_trial(config, place, ignore)) == bits(run_trial(alone(splits), place, ignore))


def test_an_assistant_stands_between_and_each_is_trained_once(splits: Splits, tmp_path: Path) -> None:
    place = runtime(splits, tmp_path)
    assistant = taught(splits, larger(splits), detector="gfl_r18_small")
    run_trial(taught(splits, assistant), place, ignore)
    run_trial(taught(splits, assistant, seed=1), place, ignore)
    assert len(list((tmp_path / "steps").iterdir())) == 4
    kinds = [taught(splits, teacher).config_id for teacher in (None, larger(splits), assistant)]
    assert len(set(kinds)) == 3


def test_an_exported_teacher_is_as_good_as_the_one_that_was_trained(splits: Splits, tmp_path: Path) -> None:
    place, teacher = runtime(splits, tmp_path), larger(splits)
    path, _ = export_student(run_first_step(teacher, place).weights, tmp_path / "export")
    found = run_trial(taught(splits, replace(teacher, checkpoint=str(path))), place, ignore)
    assert bits(found) == bits(run_trial(taught(splits, teacher), place, ignore))
    wrong = replace(teacher, checkpoint=str(path), detector="gfl_r34_small")
    with pytest.raises(CheckpointError, match="must hold detector gfl_r34_small, but holds gfl_r18_small"):
        run_trial(taught(splits, wrong), place, ignore)
