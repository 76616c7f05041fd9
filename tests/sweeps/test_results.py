"""A sweep read back from a real MLflow: its trials, the best of them, and parameters with their types."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from search_spaces.distributions import Scalar
from search_spaces.params import params_of
from sweeps.connection import TrackingError
from sweeps.leaders import leading
from sweeps.recorder import Ended
from sweeps.results import Trial, best_trial, ranked, searched, typed_params
from sweeps.runs import Runs
from sweeps.spec import preset_values
from tests.sweeps.events import T0
from tests.sweeps.sweep_files import spec_of
from trainables.catalog import DETECTORS, METHODS
from trainables.config import TrialConfig
from trainables.errors import SpecError

SCOPE: dict[str, Scalar] = {"scenario": "digits/5+5", "detector": "gfl_r18_tiny", "method": "erd"}


@pytest.fixture
def runs(uri: str) -> Runs:
    runs = Runs(uri, "good")
    runs.start_sweep("name: good\n", SCOPE, T0)
    return runs


def start(runs: Runs, number: int, role: str = "search", **params: Scalar) -> str:
    trial_id = f"{role}{number}"
    runs.start_trial(trial_id, params, {**SCOPE, "role": role, "number": number}, T0 + number)
    return trial_id


def run(runs: Runs, number: int, verdict: Any, ap: float, role: str = "search") -> None:
    trial_id = start(runs, number, role)
    runs.log_step(trial_id, 0, {"ap_all": 0.99}, T0, [], {})
    runs.log_epoch(trial_id, {"ap_all_mid": ap / 2, "ap_old_mid": 0.1, "loss": 3.0}, 1, T0)
    if verdict == "finished":
        runs.log_step(trial_id, 1, {"ap_all": ap, "ap_old": 0.3}, T0, [], {})
    runs.end_trial(trial_id, verdict, T0 + number + 3_600_000)


def test_trials_come_by_number_with_what_they_reached(runs: Runs, uri: str) -> None:
    run(runs, 2, "stopped", 0.6)
    run(runs, 0, "finished", 0.4)
    start(runs, 1, lambda_cls=0.5)
    run(runs, 0, "finished", 0.9, role="final")
    first, second, third = searched(uri, "good")
    assert [trial.number for trial in (first, second, third)] == [0, 1, 2]
    assert (first.state, first.hours, first.trial_id) == ("finished", 1.0, "search0")
    assert (first.ap["ap_all"], first.ap["ap_old"]) == (0.4, 0.3)
    assert (second.state, second.params) == ("running", {"lambda_cls": "0.5"})
    assert second.hours > 1000  # since T0
    assert (third.state, third.ap) == ("stopped", {"ap_all": 0.3, "ap_old": 0.1})


def test_one_stopped_at_the_end_of_a_step_has_what_it_reached_there(runs: Runs, uri: str) -> None:
    trial_id = start(runs, 0)
    runs.log_epoch(trial_id, {"ap_all_mid": 0.2}, 1, T0)
    runs.log_step(trial_id, 1, {"ap_all": 0.4}, T0, [], {})
    runs.log_trial(trial_id, {"progress": 2}, {}, T0)
    runs.end_trial(trial_id, "stopped", T0)
    (found,) = searched(uri, "good")
    assert found.ap["ap_all"] == 0.4


def test_reading_creates_nothing(uri: str, tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=r"no sweep 'absent' at .*available: none"):
        searched(uri, "absent")
    with pytest.raises(TrackingError, match="no database"):
        searched(f"sqlite:///{tmp_path}/absent.db", "good")
    assert not (tmp_path / "absent.db").exists()


def trial(number: int, state: str = "finished", **ap: float) -> Trial:
    aims = {f"objective/{name}": value for name, value in ap.items() if "/" not in name}
    return Trial(number, f"t{number}", state, "erd", {}, ap | aims, 0.1)


FOUND = [
    trial(0, ap_all=0.3, forgetting=0.2),
    trial(1, ap_all=0.5, forgetting=0.4),
    trial(2, ap_all=0.5, forgetting=0.2),
    trial(3, "stopped", ap_all=0.9, forgetting=0.0),
    trial(4, "failed"),
    trial(5, ap_old=0.9),
]


@pytest.mark.parametrize(("objective", "number"), [("ap_all", 1), ("forgetting", 0), ("ap_old", 5)])
def test_the_best_trial_is_finished_and_of_equal_ones_the_first(objective: str, number: int) -> None:
    spec = spec_of(objective=objective)
    for found in (FOUND, FOUND[::-1]):
        assert best_trial(spec, found).number == number


def test_one_order_for_everyone() -> None:
    spec = spec_of(constraints=["ap_old >= 0.4"])
    held = {f"excess/{spec.aim.constraints[0].name}": -0.1}
    missed = dict.fromkeys(held, 0.1)
    found = [
        trial(0, ap_all=0.9, **missed),
        trial(1, "stopped", ap_all=0.95, **held),
        trial(2, ap_all=0.5, **held),
        trial(3, ap_all=0.6, **held, **{"race/mean": 0.6, "race/seeds": 2.0}),
        trial(4, ap_all=0.6, **held, **{"race/mean": 0.5, "race/seeds": 3.0}),
        trial(5, ap_all=0.5, **held, **{"race/mean": 0.55, "race/seeds": 3.0}),
        trial(6, "failed"),
    ]
    assert [one.number for one in ranked(spec.aim, found)] == [5, 4, 3, 2, 0, 1, 6]
    assert best_trial(spec, found).number == 5


def test_leaders_of_a_search_by_rank_are_those_with_the_best_rank() -> None:
    scenarios = ["digits/5+5", "digits/4+3+3"]
    spec = spec_of(scenario=None, scenarios=scenarios, pooled="rank", seeds=3)
    config = TrialConfig(
        scenario=spec.scenario, data="", detector=spec.detector, method="erd", base_epochs=1, epochs=1, batch_size=1
    )

    def ended(number: int, *parts: float) -> Ended:
        ap = {"objective/ap_all": sum(parts) / 2, **{f"scenario/{one}": p for one, p in zip("ab", parts, strict=True)}}
        return Ended(number, str(number), "finished", "erd", {}, ap, 0.0, pooled="rank", config=config)

    found = [ended(0, 0.9, 0.1), ended(1, 0.4, 0.4), ended(2, 0.3, 0.3)]  # trial 0 has the best mean
    assert [one.number for one in leading(spec, found)] == [1, 0, 2]


def test_a_trial_can_be_asked_for(tmp_path: Path) -> None:
    assert best_trial(spec_of(), FOUND, "0").number == 0
    for number in (3, 4, 5, 99):
        with pytest.raises(SpecError, match=f"trial {number} has not finished; finished trials: 0, 1, 2"):
            best_trial(spec_of(), FOUND, str(number))


def test_without_a_finished_trial_there_is_no_best() -> None:
    with pytest.raises(SpecError, match="no trial has finished with ap_all"):
        best_trial(spec_of(), FOUND[3:])


ODD: dict[str, Scalar] = {"optim/lr_scale": 0.1 + 0.2, "optim/weight_decay": 1e-05}
SETTINGS = [
    (method, preset, detector)
    for method in METHODS
    for preset in METHODS[method].presets
    for detector in ("gfl_r18_tiny", "gfl_r50")
]


@pytest.fixture(scope="module")
def known(shared_uri: str) -> dict[tuple[str, str, str], Trial]:
    """A trial of each setting, as MLflow has it."""
    runs = Runs(shared_uri, "good")
    runs.start_sweep("name: good\n", SCOPE, T0)
    for number, setting in enumerate(SETTINGS):
        start(runs, number, **{**preset_values(*setting), **ODD, "seed": 0, "config_id": "0123"})
    return dict(zip(SETTINGS, searched(shared_uri, "good"), strict=True))


@pytest.mark.parametrize("setting", SETTINGS, ids="-".join)
def test_parameters_come_back_from_mlflow_as_they_were(
    known: dict[tuple[str, str, str], Trial], setting: tuple[str, str, str]
) -> None:
    method, preset, detector = setting
    spec = replace(spec_of(), methods={method: preset}, detector=detector)
    values = preset_values(method, preset, detector)
    typed = typed_params(spec, method, known[setting].params)
    assert typed == {**values, **ODD}
    assert {name: type(value) for name, value in typed.items()} == {name: type(v) for name, v in values.items()}
    built = METHODS[method].params(**{n: typed[f"{method}/{n}"] for n in params_of(METHODS[method].params)})
    assert asdict(built) == asdict(METHODS[method].presets[preset])
    assert DETECTORS[detector].optim(**{n: typed[f"optim/{n}"] for n in params_of(DETECTORS[detector].optim)})


@pytest.mark.parametrize("value", [True, False])
def test_switches_come_back_as_switches(value: bool) -> None:
    texts = {name: str(text) for name, text in spec_of().all_defaults().items()} | {"erd/average_eps": str(value)}
    assert typed_params(spec_of(), "erd", texts)["erd/average_eps"] is value
