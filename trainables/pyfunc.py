"""What MLflow loads a registered model by. mmdet, which announces itself, is imported without a word."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainables.environment import prepare_process

if TYPE_CHECKING:
    from trainables.inference import ImageDetector


def _load_pyfunc(path: str) -> ImageDetector:
    """The detector of an exported checkpoint; MLflow calls it by this name."""
    prepare_process()
    from trainables.inference import ImageDetector

    return ImageDetector(Path(path))
