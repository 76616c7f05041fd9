"""Where a chain of steps runs, and what it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from trainables.config import Runtime
from trainables.datasets import Splits
from trainables.step import StepResult


def runtime(splits: Splits, store: Path, **more: Any) -> Runtime:
    """A place with these scenes and this store."""
    return Runtime(splits=splits, store=store, **more)


def ignore(event: dict[str, Any]) -> None:
    """Hear an event and do nothing."""


def bits(results: list[StepResult]) -> list[Any]:
    """Every tensor and every AP of a chain."""
    tensors = [torch.load(result.weights, weights_only=True) for result in results]
    return [{name: tensor.numpy().tobytes() for name, tensor in state.items()} for state in tensors] + [
        result.ap for result in results
    ]
