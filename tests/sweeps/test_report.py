"""The report: one page that needs no network, with names that cannot break it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from sweeps.report import write_report
from sweeps.results import Trial
from sweeps.spec import parse_spec
from tests.sweeps.sweep_files import spec_of, text_of

TRIALS = [
    Trial(0, "a", "finished", {}, {"ap_all": 0.4, "ap_old": 0.5, "ap_new": 0.3}, 0.1),
    Trial(1, "b", "stopped", {}, {"ap_all": 0.2, "ap_old": 0.25, "ap_new": 0.125}, 0.1),
    Trial(2, "c", "failed", {}, {}, 0.1),
]
ROWS = {
    "joint": {"ap_all": [0.6], "ap_old": [0.7], "ap_new": [0.5]},
    "best <found>": {"ap_all": [0.4, 0.5], "ap_old": [0.4, 0.4], "ap_new": [0.4, 0.6], "forgetting": [0.1, 0.2]},
}


class Page(HTMLParser):
    """The tags of a page with their attributes, and the texts of its table and its `pre`."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts.setdefault(self._open[-1], []).append(data)


@pytest.fixture(scope="module")
def page() -> Page:
    spec = parse_spec(text_of(trials=3) + "# </pre><script>alert(1)</script>\n", "good.yaml")
    return Page(write_report(spec, TRIALS, ROWS))


def test_nothing_is_fetched(page: Page) -> None:
    fetched = [(tag, attrs) for tag, attrs in page.tags if {"src", "href"} & set(attrs)]
    assert fetched == []
    assert sum(tag == "script" for tag, _ in page.tags) >= 3
    assert not any(re.search(r"@import|url\(", text) for text in page.texts["style"])


def test_names_are_shown_as_they_are(page: Page) -> None:
    assert "best <found>" in page.texts["td"]
    assert any("</pre><script>alert(1)</script>" in text for text in page.texts["pre"])
    assert "found" not in [tag for tag, _ in page.tags]


def test_the_table_holds_means_in_coco_points(page: Page) -> None:
    cells = page.texts["td"]
    row = cells[cells.index("best <found>") :][:5]
    assert row == ["best <found>", "45.0", "40.0", "50.0", "15.0"]
    assert cells[:5] == ["joint", "60.0", "70.0", "50.0", "-"]
    assert "erd on digits/5+5, gfl_r18_tiny: 3 trials, 1 finished." in page.texts["p"][0]


def test_before_a_promotion_and_before_any_trial_there_is_a_page() -> None:
    page = Page(write_report(spec_of(), []))
    assert "table" not in [tag for tag, _ in page.tags]
    assert "Sweep good" in page.texts["h1"]
