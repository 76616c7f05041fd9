"""Compiled operations that are missing are told, with what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trainables.environment import require_ops
from trainables.errors import PalimpsestError

WITHOUT_OPS = """
import sys
sys.modules["mmcv._ext"] = None  # Python then fails the import as for a module that was never built
from trainables.environment import require_ops
from trainables.errors import PalimpsestError
try:
    require_ops()
except PalimpsestError as error:
    print(error)
"""
PRINTING = """
import logging, os, pathlib, subprocess, sys
from trainables.environment import printing_into
for number in range(2):
    print("before")
    with printing_into(pathlib.Path(sys.argv[1])):
        print("printed")
        logging.warning("logged")
        os.write(1, b"compiled\\n")
        subprocess.run(["echo", "child"])
        if number:
            raise SystemExit("ended")
"""


def test_this_installation_can_train() -> None:
    require_ops()


@pytest.mark.smoke
def test_missing_operations_are_told_in_one_line_with_the_remedy() -> None:
    call = [sys.executable, "-c", WITHOUT_OPS]
    (line,) = subprocess.run(call, check=True, capture_output=True, text=True).stdout.splitlines()
    assert line.startswith("installation: mmcv's compiled operations must load with torch ")
    assert line.endswith("build them again: uv sync --reinstall-package onedl-mmcv")


def test_operations_without_cuda_are_refused_where_torch_sees_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("mmcv.ops.get_compiling_cuda_version", lambda: "not available")
    with pytest.raises(PalimpsestError, match="FORCE_CUDA=1 uv sync --reinstall-package onedl-mmcv") as raised:
        require_ops()
    assert len(raised.value.problems) == 1


def test_all_that_a_process_prints_meanwhile_is_appended_to_a_file(tmp_path: Path) -> None:
    file = tmp_path / "new" / "log.txt"
    ended = subprocess.run([sys.executable, "-c", PRINTING, str(file)], check=False, capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("before\nbefore\n", "ended\n")
    assert sorted(file.read_text().splitlines()) == sorted(["printed", "WARNING:root:logged", "compiled", "child"] * 2)


@pytest.mark.gpu
def test_box_suppression_runs_on_the_gpu() -> None:
    import torch
    from mmcv.ops import nms

    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 0.0, 11.0, 10.0]], device="cuda")
    _, indices = nms(boxes, torch.tensor([0.9, 0.8], device="cuda"), iou_threshold=0.5)
    assert indices.tolist() == [0]
