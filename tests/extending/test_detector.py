"""The detector of the page trains a chain of steps under any method of its family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from search_spaces.optim import TinyOptimParams
from tests.trainables.batches import images, sample, tiny
from trainables.catalog import DETECTORS, Detector
from trainables.incremental import IncrementalDetector
from trainables.recipes import TINY

NAME = "gfl_mobile_tiny"


@pytest.fixture(autouse=True)
def catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Detector("gfl", f"tests.extending.detector:{NAME}", TINY, TinyOptimParams)
    monkeypatch.setitem(DETECTORS, NAME, entry)


@pytest.mark.parametrize("method", ["erd", "latent"])
def test_a_chain_trains_and_is_scored(chain: Callable[..., Any], method: str) -> None:
    base, last = chain(method, NAME)
    assert (len(base["classes"]), len(last["classes"])) == (5, 10)
    assert 0 <= last["metrics"]["ap_all"] <= 1
    assert last["facts"]["params_total"] < 1.5e6


def test_the_losses_reach_every_parameter() -> None:
    detector = tiny(3, detector=NAME)
    model = IncrementalDetector(detector, torch.ones(1, 3, dtype=torch.bool), torch.arange(0)).train()
    losses = model(images(2), [sample([(8.0, 8.0, 40.0, 40.0)], [label]) for label in (0, 2)], mode="loss")
    sum(value for name, value in losses.items() if name.startswith("loss")).backward()
    assert [name for name, value in detector.named_parameters() if value.grad is None] == []
