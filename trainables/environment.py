"""A process that can train: mmcv's compiled operations are there, mmdet's modules registered, threads set, no noise."""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import io
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from trainables.errors import PalimpsestError

PACKAGES = (
    "palimpsest", "torch", "onedl-mmcv", "onedl-mmengine", "onedl-mmdetection", "ray", "optuna", "mlflow", "numpy",
    "pycocotools", "faster-coco-eval",
)  # fmt: skip
REINSTALL = "uv sync --reinstall-package onedl-mmcv"


def require_ops() -> None:
    """Nothing, where mmcv's compiled operations load and can run where torch runs.

    mmcv installs without a complaint when its operations are left out, or built for another torch or without CUDA;
    the first box suppression of a trial would then fail, minutes later.

    Raises:
        PalimpsestError: the operations are missing, do not fit torch, or know no CUDA although torch sees a GPU.
    """
    import torch

    try:
        from mmcv.ops import get_compiling_cuda_version
    except ImportError as error:
        problem = (
            f"mmcv's compiled operations must load with torch {torch.__version__}, but: {_first_line(error)}; "
            f"build them again: {REINSTALL}"
        )
        raise PalimpsestError("installation", [problem]) from error
    if torch.cuda.is_available() and get_compiling_cuda_version() == "not available":
        problem = (
            "torch sees a GPU, but mmcv's operations were built without CUDA; with a CUDA "
            f"{torch.version.cuda} toolkit: FORCE_CUDA=1 {REINSTALL}, or hide the GPU: CUDA_VISIBLE_DEVICES="
        )
        raise PalimpsestError("installation", [problem])


def package_versions() -> dict[str, str]:
    """The installed version of each package that a trial's numbers can depend on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES if _installed(name)}


def _installed(name: str) -> bool:
    return next(iter(importlib.metadata.distributions(name=name)), None) is not None


def prepare_process(threads: int | None = None) -> None:
    """Register mmdet's modules, keep its announcements off the terminal, and give torch its threads.

    What is loaded by then is left alone by the garbage collector, which mmengine calls for every data set.

    Args:
        threads: of torch; None leaves it those that it has.
    """
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        import torch
        from mmdet.utils import register_all_modules
        from mmengine.logging import MMLogger

        MMLogger.get_current_instance().setLevel("ERROR")
        register_all_modules()
    for message in ("DeprecationWarning: `num_anchors` is deprecated", "torch.meshgrid: in an upcoming release"):
        warnings.filterwarnings("ignore", message=message)
    if threads is not None:
        torch.set_num_threads(threads)
    gc.collect()
    gc.freeze()


@contextlib.contextmanager
def printing_into(file: Path) -> Iterator[None]:
    """Append to `file` all that this process prints meanwhile, compiled code and its own children included."""
    file.parent.mkdir(parents=True, exist_ok=True)
    kept = os.dup(1), os.dup(2)
    try:
        with file.open("ab") as log:
            _print_into(log.fileno(), log.fileno())
        yield
    finally:
        _print_into(*kept)
        for copy in kept:
            os.close(copy)


def _print_into(stdout: int, stderr: int) -> None:
    for stream, number, target in ((sys.stdout, 1, stdout), (sys.stderr, 2, stderr)):
        with contextlib.suppress(OSError):  # a full disk
            stream.flush()
        os.dup2(target, number)


def release_memory() -> None:
    """Give back the GPU memory that a trial leaves in torch's cache: the process goes on with another trial."""
    import torch

    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def _first_line(error: ImportError) -> str:
    return str(error).strip().partition("\n")[0]
