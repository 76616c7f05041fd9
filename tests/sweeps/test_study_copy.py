"""The study in a database, as Optuna's dashboard finds it while the sweep runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from sweeps.study import study_file, study_storage
from sweeps.study_copy import StudyCopy
from trainables.journal import cut

RANGE = {"lambda_cls": optuna.distributions.FloatDistribution(0.1, 10.0, log=True)}


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return begun(tmp_path)


def begun(folder: Path) -> optuna.Study:
    study = optuna.create_study(study_name="s", storage=study_storage(folder), direction="maximize")
    study.enqueue_trial({"lambda_cls": 1.0})
    study.enqueue_trial({"lambda_cls": 2.0})
    return study


def copied(url: str) -> list[FrozenTrial]:
    """What a reader of the database finds."""
    return optuna.load_study(study_name="s", storage=url).get_trials()


def alike(one: FrozenTrial, other: FrozenTrial) -> bool:
    names = ("number", "state", "values", "params", "distributions", "intermediate_values", "constraints")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def grow(study: optuna.Study, copy: StudyCopy, url: str) -> None:
    """A study of every kind of end; the copy is looked at on the way."""
    copy.update()
    first = study.ask(RANGE)
    first.report(0.25, 1)
    copy.update()
    assert [(t.state, t.params) for t in copied(url)] == [(TrialState.RUNNING, {"lambda_cls": 1.0})]
    second = study.ask(RANGE)
    first.report(0.5, 2)
    first.set_constraint("forgetting <= 0.05", -0.01)
    study.tell(first, 0.75)
    second.report(0.125, 1)
    study.tell(second, state=TrialState.PRUNED)
    study.tell(study.ask(RANGE), state=TrialState.FAIL)
    study.ask(RANGE)
    copy.update()
    assert all(map(alike, copied(url), study.trials))
    assert [trial.state.name for trial in copied(url)] == ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]


def test_the_copy_follows_the_study(study: optuna.Study, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    grow(study, StudyCopy("s", tmp_path, url), url)
    assert copied(url)[0].datetime_start == study.trials[0].datetime_start


def test_another_process_goes_on_with_it(study: optuna.Study, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    trial = study.ask(RANGE)
    StudyCopy("s", tmp_path, url).update()
    study.tell(trial, 0.5)
    StudyCopy("s", tmp_path, url).update()
    assert [(t.state, t.value) for t in copied(url)] == [(TrialState.COMPLETE, 0.5)]


def test_a_search_begun_anew_replaces_the_copy_of_the_one_before(study: optuna.Study, tmp_path: Path) -> None:
    url, copy = f"sqlite:///{tmp_path}/study.db", StudyCopy("s", tmp_path, f"sqlite:///{tmp_path}/study.db")
    for value in (0.25, 0.5):
        study.tell(study.ask(RANGE), value)
    copy.update()
    study_file(tmp_path).unlink()
    again = begun(tmp_path)
    again.tell(again.ask(RANGE), 0.75)
    copy.update()
    assert [trial.value for trial in copied(url)] == [0.75]


@pytest.mark.parametrize("process", ["the same", "another"])
def test_a_study_that_went_back_to_a_snapshot_is_copied_as_it_became(tmp_path: Path, process: str) -> None:
    url, study = f"sqlite:///{tmp_path}/study.db", begun(tmp_path)
    copy = StudyCopy("s", tmp_path, url)
    trial = study.ask(RANGE)
    place = study_file(tmp_path).stat().st_size
    trial.report(0.25, 1)
    study.tell(trial, 0.25)
    study.ask(RANGE)
    copy.update()
    cut(study_file(tmp_path), place)
    again = optuna.load_study(study_name="s", storage=study_storage(tmp_path))
    again.tell(0, 0.75)
    (copy if process == "the same" else StudyCopy("s", tmp_path, url)).update()
    assert [(one.value, one.intermediate_values) for one in copied(url)] == [(0.75, {})]


def test_before_the_search_there_is_nothing_to_copy(tmp_path: Path) -> None:
    StudyCopy("s", tmp_path, f"sqlite:///{tmp_path}/study.db").update()
    assert not (tmp_path / "study.db").exists()


@pytest.fixture
def postgres() -> Iterator[str]:
    """The URL of a real server of our own, where PostgreSQL is installed."""
    psycopg = pytest.importorskip("psycopg")
    if not shutil.which("initdb") or not shutil.which("pg_ctl"):
        pytest.skip("needs initdb and pg_ctl")
    as_root = os.geteuid() == 0  # whom PostgreSQL refuses
    run = partial(subprocess.run, check=True, capture_output=True, user="nobody" if as_root else None)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        if as_root:
            shutil.chown(folder, "nobody")
        data, options = f"{folder}/data", f"-k {folder} -c listen_addresses=''"
        run(["initdb", "-D", data, "-U", "optuna", "--auth=trust"], cwd=folder)
        run(["pg_ctl", "-D", data, "-w", "-l", f"{folder}/log", "-o", options, "start"], cwd=folder)
        try:
            with psycopg.connect(f"host={folder} user=optuna dbname=postgres", autocommit=True) as connection:
                connection.execute("CREATE DATABASE optuna")
            yield f"postgresql+psycopg://optuna@/optuna?host={folder}"
        finally:
            run(["pg_ctl", "-D", data, "-w", "-m", "immediate", "stop"], cwd=folder)


@pytest.mark.smoke
def test_the_copy_follows_the_study_into_postgresql(study: optuna.Study, tmp_path: Path, postgres: str) -> None:
    grow(study, StudyCopy("s", tmp_path, postgres), postgres)
