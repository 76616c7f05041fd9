"""Searches of every kind on a tiny budget, read back from MLflow, from the study's database and from the report."""

from __future__ import annotations

import json

import optuna
import pytest

from tests.records import artifact, the_run
from tests.smoke.servers import kill
from tests.smoke.workspace import Workspace, until
from tests.sweeps.page import Page

pytestmark = [pytest.mark.smoke, pytest.mark.long]

FRONT = """
name: front
scenario: digits/5+5
data: {kind: digits, sizes: [96, 24, 24]}
detector: gfl_r18_tiny
method: [erd, finetune]
search: {lambda_cls: [0.1, 10.0], loss_scope: declared, lr_scale: declared}
training: {base_epochs: 1, epochs: 2, batch_size: 16}
trials: 4
objective: [ap_new, forgetting]
constraints: [params_trainable <= 10000000]
compare: []
promotion: {seeds: [0]}
"""
POPULATION = """
name: population
scenario: digits/5+5
data: {kind: digits, sizes: [96, 24, 24]}
detector: gfl_r18_tiny
method: erd
search: {lambda_cls: [0.1, 10.0], lr_scale: declared}
training: {base_epochs: 1, epochs: 4, batch_size: 16}
trials: 4
scheduler: {name: pbt, interval: 1}
sampler: random
compare: []
promotion: {seeds: [0]}
"""


def study_of(workspace: Workspace, name: str) -> optuna.Study:
    """The study as Optuna's dashboard opens it."""
    return optuna.load_study(study_name=name, storage=f"sqlite:///{workspace.folder}/runs/sweeps/{name}/study.db")


def killed_and_resumed(workspace: Workspace, name: str, text: str, line: str, end: str) -> str:
    """What a sweep prints that was killed at a line which contains `line`, and gone on with to its `end`."""
    path = workspace.folder / f"{name}.yaml"
    path.write_text(text)
    with workspace.running("run", str(path)) as process:
        until(process, line)
        kill(process)
    printed = workspace.run("run", str(path), "--resume")
    assert end in printed
    return printed


@pytest.fixture(scope="module")
def front(workspace: Workspace) -> Workspace:
    killed_and_resumed(workspace, "front", FRONT, "1/4 done", "front: 4 finished")
    again = workspace.run("run", "front.yaml", "--resume")  # nothing is left to do
    assert "front: 4 finished" in again
    return workspace


def test_two_objectives_with_a_constraint_over_two_methods_killed_and_gone_on_with(front: Workspace) -> None:
    workspace = front
    trials = workspace.trials("front")
    assert [run.data.tags["method"] for run in trials[:2]] == ["erd", "finetune"]
    study = study_of(workspace, "front")
    done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert "RUNNING" not in {trial.state.name for trial in study.trials}
    known = {tuple(trial.values) for trial in done}
    for run in trials:
        values = run.data.metrics["objective/ap_new"], run.data.metrics["objective/forgetting"]
        assert values in known
        assert values == (run.data.metrics["ap_new"], run.data.metrics["forgetting"])
        assert run.data.metrics["excess/params_trainable_max"] < 0
    assert all(list(trial.constraints) == ["params_trainable <= 1e+07"] for trial in done)
    printed = workspace.run("report", "front")
    assert "front.html" in printed
    text = (workspace.folder / "front.html").read_text(encoding="utf-8")
    assert "Pareto front" in text
    rows = {row[0].partition(",")[0]: row for row in Page(text).rows if row}
    for run in trials:
        assert rows[f"trial {run.data.tags['number']}"][3] == f"{100 * run.data.metrics['ap_new']:.1f}"
    assert len(study.best_trials) > 1
    assert "choose one with --trial" in workspace.run("promote", "front", status=1)


def test_a_configuration_for_two_scenarios_killed_and_gone_on_with(workspace: Workspace) -> None:
    text = FRONT.replace("name: front", "name: pooled").replace(
        "scenario: digits/5+5", "scenarios: [digits/4+3+3, digits/5+5]"
    )
    text = text.replace("[ap_new, forgetting]", "ap_all\npooled: mean").replace("compare: []", "compare: [joint]")
    killed_and_resumed(workspace, "pooled", text + "scheduler: {name: none}\n", "1/4 done", "next: sweeps show pooled")
    trials = workspace.trials("pooled")
    study = study_of(workspace, "pooled")
    values = [trial.value for trial in study.trials if trial.state.name == "COMPLETE"]
    finished = [run for run in trials if run.data.tags["verdict"] == "finished"]
    assert sorted(values) == pytest.approx(sorted(run.data.metrics["objective/ap_all"] for run in finished), abs=1e-12)
    for run in finished:
        parts = [run.data.metrics[f"digits/{split}/ap_all"] for split in ("5_5", "4_3_3")]
        assert sum(parts) / 2 == pytest.approx(run.data.metrics["objective/ap_all"], abs=1e-12)
    printed = workspace.run("promote", "pooled", "--trial", finished[0].data.tags["number"])
    assert "digits/5+5, gfl_r18_tiny, test split" in printed
    assert "digits/4+3+3, gfl_r18_tiny, test split" in printed
    sweep = the_run(workspace.tracking_uri, sweep="pooled", level="sweep")
    assert "digits/4+3+3: AP all" in artifact(workspace.tracking_uri, sweep, "report.html")


def test_a_population_trains_whole_killed_and_gone_on_with(workspace: Workspace) -> None:
    killed_and_resumed(workspace, "population", POPULATION, "1/4 done", "population: 4 finished")
    trials = workspace.trials("population")
    study = study_of(workspace, "population")
    assert sorted(trial.value for trial in study.trials) == pytest.approx(
        sorted(run.data.metrics["ap_all"] for run in trials), abs=1e-12
    )
    changed = [json.loads(run.data.tags["schedule"]) for run in trials if "schedule" in run.data.tags]
    assert changed, "somebody must have gone on from somebody else"
    for schedule in changed:
        assert [one["until"] for one in schedule][-1] == 4
        rates = [one["optim"]["lr_scale"] for one in schedule]
        assert all(0.25 <= rate <= 2.0 for rate in rates)
    best = max(trials, key=lambda run: run.data.metrics["ap_all"])
    printed = workspace.run("promote", "population", "--trial", best.data.tags["number"])
    assert "model" in printed


def test_a_search_on_the_first_increment_killed_in_its_race_and_reported_on_another_scenario(front: Workspace) -> None:
    workspace = front
    text = (
        FRONT.replace("name: front", "name: raced")
        .replace("digits/5+5", "digits/4+3+3")
        .replace("[ap_new, forgetting]", "ap_all")
    )
    more = "seeds: 2\nbudget: {steps: first, patience: 3}\nreport_on: digits/5+5\nwarm_start: [front]\n"
    killed_and_resumed(workspace, "raced", text + more, "leader trial", "(2 seeds)")
    raced = [run for run in workspace.trials("raced") if "race/mean" in run.data.metrics]
    assert {run.data.metrics["race/seeds"] for run in raced} <= {1.0, 2.0}
    leader = max(raced, key=lambda run: (run.data.metrics["race/seeds"], run.data.metrics["race/mean"]))
    promoted = workspace.run("promote", "raced")
    assert f"promoting trial {leader.data.tags['number']}," in promoted
    assert "digits/5+5, gfl_r18_tiny, test split" in promoted


def test_the_best_of_each_method_is_promoted_beside_the_best_of_all(front: Workspace) -> None:
    text = FRONT.replace("name: front", "name: alike").replace("[ap_new, forgetting]", "ap_all\neach_method: true")
    (front.folder / "alike.yaml").write_text(text)
    front.run("run", "alike.yaml")
    best = max(front.trials("alike"), key=lambda run: run.data.metrics["ap_all"])
    method, number = best.data.tags["method"], best.data.tags["number"]
    assert f"promoting trial {number}," in front.run("promote", "alike")
    sweep = the_run(front.tracking_uri, sweep="alike", level="sweep")
    rows = json.loads(artifact(front.tracking_uri, sweep, "result.json"))["digits/5+5"]
    (other,) = {"erd", "finetune"} - {method}
    assert {f"{method} best found", f"{other} found"} <= set(rows)
    assert f"{method} found" not in rows


def test_two_scenarios_side_by_side_killed_and_gone_on_with_have_a_study_and_records_each(workspace: Workspace) -> None:
    both = FRONT.replace("name: front", "name: both").replace(
        "scenario: digits/5+5", "scenarios: [digits/5+5, digits/4+3+3]"
    )
    text = both.replace("trials: 4", "trials: 2")
    printed = killed_and_resumed(workspace, "both", text, "1/2 done", "next: sweeps show both.digits-4-3-3")
    for name in ("both.digits-5-5", "both.digits-4-3-3"):
        assert f"{name} | {name}: 2 finished" in printed
        assert f"next: sweeps show {name}" in printed
        assert len(workspace.trials(name)) == 2
        assert len(study_of(workspace, name).trials) == 2
        assert f"{name}: 2 trials" in workspace.run("show", name)
