"""The metric of the page, by hand and in the records of a chain."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.extending.metric import worst_step
from trainables.metrics import OF_STEPS, summarize

NAN = math.nan


def test_it_is_the_lowest_of_the_last_row() -> None:
    assert worst_step(np.array([[0.5, NAN, NAN], [0.3, 0.6, NAN], [0.4, NAN, 0.7]])) == 0.4
    assert math.isnan(worst_step(np.array([[NAN]])))


def test_it_is_in_every_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OF_STEPS, "ap_worst", ("max", worst_step))
    first, second = summarize({"ap": np.array([[0.5, 0.7, NAN], [0.2, 0.6, 0.3]])}, [0, 0, 1])
    assert first["ap_worst"] == pytest.approx(0.6)
    assert second["ap_worst"] == pytest.approx(0.3)  # of the classes of the second step; of the first: 0.4
