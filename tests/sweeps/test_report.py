"""The report: one page that needs no network, made of what a real MLflow holds."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sweeps import figures
from sweeps.description import description
from sweeps.findings import read_findings
from sweeps.report import sweep_report
from sweeps.runs import NOTE, Runs
from sweeps.show import show_sweep
from tests.records import artifact, artifacts, the_run
from tests.sweeps.events import T0
from tests.sweeps.page import Page
from tests.sweeps.sweep_files import text_of

REASON = "step 2, iteration 7: must be finite, but loss_cls[old] is <nan>"
HOSTILE = "# </pre><script>alert(1)</script>\n"
SECTIONS = ["result", "classes", "forgetting", "tradeoff", "parameters", "stopping", "hours", "protocol", "file"]


def sweep(uri: str, trials: int, **changes: Any) -> None:
    """A sweep with references and trials; every third one was stopped, the last one failed."""
    runs = Runs(uri, "good")
    text = text_of(search={"lambda_cls": "declared", "cls_loss": ["kl", "l2_logit"]}, **changes) + HOSTILE
    runs.start_sweep(text, {"scenario": "digits/5+5"}, T0)
    for name, ap in {"joint": 0.8, "finetune": 0.4, "erd_2023": 0.6}.items():
        runs.log_reference(name, {"ap_all": 0.9, "ap_new": 0.9}, 0)
        runs.log_reference(name, {"ap_all": ap, "ap_old": ap, "ap_new": ap, "forgetting": 0.1}, 1)
    for number in range(trials):
        lambda_cls, ap = 0.1 * (number + 1), 0.5 + 0.001 * number
        values = {"erd/lambda_cls": lambda_cls, "erd/cls_loss": ["kl", "l2_logit"][number % 2]}
        runs.start_trial(str(number), values, {"role": "search", "number": number, "method": "erd"}, T0)
        matrix = {"classes": list("0123456789"), "ap": [[0.9] * 5, [0.5] * 10]}
        metrics = {"ap_all": ap, "ap_old": 0.5, "ap_new": 0.6, "forgetting": 0.2}
        judged = {"objective/ap_all": ap, "objective/hmean": 0.54, "excess/ap_old_min": 0.25 - ap / 2}
        verdict = "failed" if number == trials - 1 else "stopped" if number % 3 == 2 else "finished"
        if verdict == "finished":
            runs.log_step(str(number), 0, {"ap_all": 0.9}, T0, [], matrix)
            runs.log_step(str(number), 1, metrics | judged, T0, [], matrix)
        if verdict == "stopped":
            runs.log_epoch(str(number), {"ap_all_mid": 0.3, "ap_old_mid": 0.2, "ap_new_mid": 0.4}, 2, T0)
        runs.log_trial(str(number), {"progress": {"finished": 5, "stopped": 2, "failed": 0}[verdict]}, {}, T0)
        runs.end_trial(str(number), verdict, T0, REASON if verdict == "failed" else "")  # type: ignore[arg-type]
    runs.end_sweep("finished", {"core_hours_spent": 1.5, "core_hours_saved_steps": 0.25}, T0)


@pytest.fixture(scope="module")
def page(shared_uri: str) -> Page:
    """Of a sweep of seven trials."""
    sweep(shared_uri, 7)
    return Page(sweep_report(shared_uri, "good"))


def test_every_section_is_there_and_nothing_is_fetched(page: Page) -> None:
    assert page.sections == SECTIONS
    assert [(tag, attrs) for tag, attrs in page.tags if {"src", "href"} & set(attrs)] == []
    assert not any(re.search(r"@import|url\(", text) for text in page.texts["style"])


def test_the_sweep_file_is_shown_as_it_is(page: Page) -> None:
    assert any("</pre><script>alert(1)</script>" in text for text in page.texts["pre"])
    assert not any("alert(1)" in text for text in page.texts.get("script", []))


def test_the_leaderboard_says_how_much_of_the_gap_each_closes(page: Page) -> None:
    assert page.row("joint") == ["joint", "80.0", "80.0", "80.0", "10.0", "100 %"]
    assert page.row("erd_2023")[-1] == "50 %"
    assert page.row("trial 0 (published defaults)") == [
        "trial 0 (published defaults)", "50.0", "50.0", "60.0", "20.0", "25 %",
    ]  # fmt: skip
    assert "7 trials, 4 finished, 2 stopped, 1 failed" in page.texts["p"][0]
    assert "2 of 7 trials were stopped early, which spared 6 of 35 epochs (17 %)." in page.texts["p"]
    assert page.row("spent") == ["spent", "1.500"]


def test_the_published_defaults_are_on_the_board_however_far_behind_and_importances_come_with_enough_trials(
    uri: str,
) -> None:
    sweep(uri, 50)
    page = Page(sweep_report(uri, "good"))
    assert page.row("trial 0 (published defaults)")[1] == "50.0"
    assert not any("not worth showing" in text for text in page.texts["p"])


def test_few_trials_have_no_importances(page: Page) -> None:
    told = "4 finished trials; with fewer than 30 importances are not worth showing."
    assert told in page.texts["p"]


def test_several_objectives_have_a_front_and_those_without_a_column_get_one(uri: str) -> None:
    sweep(uri, 7, objective=["ap_all", "hmean"], constraints=["ap_old >= 0.25"])
    text = sweep_report(uri, "good")
    assert "Pareto front" in text
    head, *_ = (page := Page(text)).rows
    row = page.row("trial 0 (published defaults)")
    assert dict(zip(head, row, strict=True))["hmean"] == "54.0"


def test_of_several_methods_the_trade_off_and_the_description_say_which(uri: str) -> None:
    sweep(uri, 7, method=["erd", "finetune"])
    found = read_findings(uri, "good")
    assert r"**Best by ap\_all: trial 4, erd**, cls\_loss kl" in description(found)
    marks = {trace.name: len(trace.x) for trace in figures.trade_off(found).data}
    assert marks == {"erd": 4, "erd, stopped": 2, "finetune": 0, "finetune, stopped": 0}


def test_of_rows_that_hold_as_much_the_best_has_its_name() -> None:
    held = {"sid": (1.0, 0.6), "finetune": (0.0, 0.3), "lwf": (1.0, 0.5), "joint": (None, 0.7)}
    rows = {
        name: {"ap_all": [ap], **({} if mb is None else {"extra_memory_mb": [mb]})} for name, (mb, ap) in held.items()
    }
    (marks,) = figures.memory(rows).data
    assert list(zip(marks.hovertext, marks.text, marks.y, strict=True)) == [
        ("sid", "sid", 60.0), ("finetune", "finetune", 30.0), ("lwf", "", 50.0),
    ]  # fmt: skip
    assert figures.memory({name: rows[name] for name in ("sid", "lwf", "joint")}) is None


def test_before_any_trial_there_is_a_page(uri: str) -> None:
    Runs(uri, "good").start_sweep(text_of(), {}, T0)
    page = Page(sweep_report(uri, "good"))
    assert page.sections == [section for section in SECTIONS if section != "classes"]
    assert "Sweep good" in page.texts["h1"]


def test_reading_it_writes_nothing(uri: str) -> None:
    sweep(uri, 3)
    sweep_report(uri, "good")
    run = the_run(uri, level="sweep")
    assert artifacts(uri, run) == {"spec.yaml"}
    assert NOTE not in run.data.tags


def test_the_sweeps_run_describes_itself_and_keeps_the_report(uri: str) -> None:
    sweep(uri, 7)
    Runs(uri, "good").log_report()
    run = the_run(uri, level="sweep")
    assert Page(artifact(uri, run, "report.html")).sections == SECTIONS
    text = run.data.tags[NOTE]
    lines = text.splitlines()
    assert "| joint | 80.0 | 80.0 | 80.0 | 10.0 | 100 % |" in lines
    assert r"**Best by ap\_all: trial 4**, cls\_loss kl, lambda\_cls 0.5" in lines
    assert r"trial 6 failed: step 2, iteration 7: must be finite, but loss\_cls\[old\] is &lt;nan>" in lines
    assert "- `sweeps promote good`" in text
    assert "--resume" not in text


def test_an_interrupted_sweep_says_how_to_go_on(uri: str) -> None:
    runs = Runs(uri, "good")
    runs.start_sweep(text_of(), {}, T0)
    runs.end_sweep("stopped", {}, T0)
    assert "- `sweeps run FILE --resume`" in description(read_findings(uri, "good"))


def test_why_a_trial_failed_is_told_as_it_is(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(uri, 7)
    assert f"trial 6 failed: {REASON}" in Page(sweep_report(uri, "good")).texts["li"]
    show_sweep(uri, "good")
    title, *rows = capsys.readouterr().out.splitlines()
    assert title.startswith("good: 7 trials")
    assert [row.split()[0] for row in rows if "finished" in row] == ["4", "3", "1", "0"]
    assert rows[-1] == f"trial 6 failed: {REASON}"


def test_memory_is_shown_where_rows_differ_in_it() -> None:
    rows = {
        "joint": {"ap_all": [0.7]},
        "replay": {"ap_all": [0.5, 0.6], "extra_memory_mb": [12.0, 12.0]},
        "sid": {"ap_all": [0.4], "extra_memory_mb": [3.0]},
    }
    (drawn,) = figures.memory(rows).data
    places = {name: (x, y) for name, x, y in zip(drawn.text, drawn.x, drawn.y, strict=True)}
    assert places == {"replay": (12.0, pytest.approx(55.0)), "sid": (3.0, pytest.approx(40.0))}
    assert figures.memory({"one": rows["sid"], "other": rows["sid"]}) is None
