"""Trials of earlier sweeps, read from a real MLflow: what counts as observed, what is a guess, what is left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps.runs import Runs
from sweeps.spec import SweepSpec
from sweeps.warm_start import known_trials
from tests.sweeps.events import T0
from tests.sweeps.sweep_files import spec_of, text_of
from trainables.errors import SpecError
from trainables.files import write_json

New = Callable[..., SweepSpec]


@pytest.fixture
def earlier(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep `good` of three trials, the last of them stopped."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    spec = replace(spec_of(), storage=tmp_path / "runs")
    record = {"identity": spec.identity, "text": text_of(), "started_in": str(tmp_path)}
    write_json(spec.folder / "spec.json", record)
    runs = Runs(uri, "good")
    runs.start_sweep(text_of(), {}, T0)
    for number, (lambda_cls, ap) in enumerate([(1.0, 0.5), (0.3, 0.6), (3.0, 0.0)]):
        values = {**spec.all_defaults(), "erd/lambda_cls": lambda_cls}
        tags = {"role": "search", "number": number, "method": "erd"}
        runs.start_trial(str(number), values, tags, T0)
        metrics = {"ap_all": ap, "objective/ap_all": ap, "forgetting": 0.1}
        if ap:
            runs.log_step(str(number), 1, metrics, T0, [], {})
        runs.end_trial(str(number), "finished" if ap else "stopped", T0)


@pytest.fixture
def new(earlier: None, tmp_path: Path) -> New:
    def new(**changes: Any) -> SweepSpec:
        return replace(spec_of(name="new", warm_start=["good"], **changes), storage=tmp_path / "runs")

    return new


def test_the_same_question_gives_observations_best_first(new: New) -> None:
    known = known_trials(new())
    assert [(one.point["erd/lambda_cls"], one.values) for one in known.observations] == [(0.3, [0.6]), (1.0, [0.5])]
    assert known.guesses == []


@pytest.mark.parametrize(
    "changes", [{"objective": "forgetting"}, {"scenario": "digits/4+3+3"}, {"seed": 1}, {"training": {"epochs": 3}}]
)
def test_another_question_gives_guesses(new: New, changes: dict[str, Any]) -> None:
    known = known_trials(new(**changes))
    assert known.observations == []
    assert [guess["erd/lambda_cls"] for guess in known.guesses] == [0.3, 1.0]


def test_what_the_new_sweep_settles_otherwise_is_a_guess(new: New) -> None:
    known = known_trials(new(fixed={"lambda_box": 0.5}))
    assert (len(known.observations), len(known.guesses)) == (0, 2)


def test_what_lies_outside_the_new_space_is_left_out(new: New) -> None:
    known = known_trials(new(search={"lambda_cls": [0.5, 2.0], "alpha_cls": [1.0, 3.0], "lr_scale": [0.5, 2.0]}))
    assert [one.point["erd/lambda_cls"] for one in known.observations] == [1.0]
    assert known_trials(new(method="finetune", search={"loss_scope": "declared"})).observations == []


def test_a_sweep_that_is_not_there_is_an_error(new: New) -> None:
    with pytest.raises(SpecError, match=r"there is no such sweep in .*available: good"):
        known_trials(replace(new(), warm_start=("absent",)))
