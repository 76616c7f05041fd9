"""A command with all that it starts: its seconds, its lines, its failure."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.bench.processes import MARK, Command

BURN = "import time\nwhile time.process_time() < 0.6: pass\nprint(flush=True); time.sleep(20)"
ORPHAN = f"""
import subprocess, sys
own = {{"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "start_new_session": True}}
subprocess.Popen([sys.executable, "-c", {BURN!r}], **own).stdout.readline()
"""
BECOMES = f"""
import os, sys, time
time.sleep(0.8)
os.execve(sys.executable, [sys.executable, "-c", {BURN.replace("20", "1")!r}], os.environ | {{{MARK!r}: sys.argv[1]}})
"""
LATE = f"""
import os, subprocess, sys
mark = os.environ.pop({MARK!r})
subprocess.run([sys.executable, "-c", {BECOMES!r}, mark], check=True)
"""


def test_cpu_seconds_are_those_of_all_processes_that_a_command_leaves_behind(tmp_path: Path) -> None:
    wall_s, cpu_s = Command([sys.executable, "-c", ORPHAN], tmp_path).wait()
    assert wall_s > 0
    assert cpu_s >= 0.6


def test_a_process_that_is_seen_before_it_is_its_own_program_counts(tmp_path: Path) -> None:
    _, cpu_s = Command([sys.executable, "-c", LATE], tmp_path).wait()
    assert cpu_s >= 0.6


def test_lines_are_handed_on_and_a_failure_is_told(tmp_path: Path) -> None:
    lines: list[str] = []
    command = Command([sys.executable, "-c", "print('one'); print('two'); raise SystemExit(3)"], tmp_path, lines.append)
    with pytest.raises(RuntimeError, match="ended with 3"):
        command.wait()
    assert lines == ["one", "two"]
