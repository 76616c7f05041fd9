"""Files of tensors, as torch writes them: read without running anything that they hold."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from trainables.errors import CheckpointError

MAX_BYTES = 16 << 30


def read_checkpoint(path: Path) -> Any:
    """The tensors, numbers and texts of a file, and the dicts and lists that they are in, on the CPU.

    Raises:
        CheckpointError: it cannot be read, holds anything else, or is too large.
    """
    try:
        _require_bounded(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever it is: torch, zip and pickle each have their own
        said = " ".join(str(error).split())[:500]
        hint = "; mmdet's publish_model.py takes out what is no tensor" if "HistoryBuffer" in str(error) else ""
        problem = f"must be a checkpoint, a file of tensors, but cannot be read as one{hint}: {said}"
        raise CheckpointError(str(path), [problem]) from error


def _require_bounded(path: Path) -> None:
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(f"must have at most {MAX_BYTES} bytes, but has {size}")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > size:  # which torch reads, but never writes
            raise ValueError(f"must not be compressed, but its {size} bytes hold {unpacked}")
