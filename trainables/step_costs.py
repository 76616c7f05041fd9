"""What training a step costs: seconds, memory, parameters."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from pathlib import Path

import torch
from mmdet.models import BaseDetector

from trainables.files import read_json, write_json
from trainables.hooks import AfterEpoch
from trainables.incremental import IncrementalDetector
from trainables.latents import LatentBuffer
from trainables.ranks import dismiss, follow, world
from trainables.records import FACTS_FILE
from trainables.step_tables import StepTables


class Clock:
    """Tells how far a step is after every epoch, and hands the epoch on to `listener`.

    Of several ranks the first one does; the others are there meanwhile for what it announces.
    """

    def __init__(self, epochs: int, path: Path, listener: AfterEpoch | None) -> None:
        self._epochs, self._path, self._listener = epochs, path, listener
        self._begin, self._first = time.perf_counter(), 0
        self._losses: dict[str, float] = {}

    def __call__(self, detector: BaseDetector, epoch: int, losses: dict[str, float]) -> None:
        self._losses = losses
        self._first = self._first or epoch
        if world()[0] > 0:
            return follow()
        left = (self._epochs - epoch) * (time.perf_counter() - self._begin) / (epoch - self._first + 1)
        write_json(self._path, {"done": epoch, "of": self._epochs, "left_s": left})
        if self._listener is not None and epoch < self._epochs:
            self._listener(detector, epoch, losses)
        dismiss()

    @property
    def facts(self) -> dict[str, float]:
        """The seconds so far and the losses of the last epoch."""
        return {"time_train_s": time.perf_counter() - self._begin, **self._losses}


def costs(
    model: IncrementalDetector, previous: Path | None, tables: StepTables, images_seen: float
) -> dict[str, float]:
    """Parameters, memory and what tables saved, of a step that was trained; `previous` as for `train_step`."""
    parameters, shared = list(model.student.parameters()), tables.facts
    teacher = 0.0
    if previous and (model.teacher is not None or model.responses is not None):
        teacher = read_json(previous.with_name(FACTS_FILE))["params_total"]
        teacher -= sum(p.numel() for p in model.student.backbone.parameters()) if model.shares_backbone else 0
    kept = sum(one.num_bytes for one in model.latents if isinstance(one, LatentBuffer))
    costs = {
        "params_total": float(sum(p.numel() for p in parameters)),
        "params_trainable": float(sum(p.numel() for p in parameters if p.requires_grad)),
        "params_teacher": teacher,
        "peak_memory_mb": peak_memory_mb(parameters[0].device.type),
        "cache_bytes": float(shared.num_bytes),
        **{f"time_saved_{kind}_s": images_seen * each for kind, each in shared.seconds_per_image.items()},
    }
    return costs | ({"replay_bytes": float(kept)} if kept else {})


def forget_peak_memory() -> None:
    """Let `peak_memory_mb` be of what comes now, and not of a trial that this process ran before.

    Of a CPU only Linux can; elsewhere it is the largest since the process began.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def peak_memory_mb(device: str) -> float:
    """The largest memory so far, in MiB: of the process or, on a GPU, of torch there."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    with contextlib.suppress(OSError):  # Linux; its ru_maxrss begins with that of the process that forked this one
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** (20 if sys.platform == "darwin" else 10)
