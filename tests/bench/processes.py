"""Wall and CPU seconds of a command with all that it starts, wherever in the process tree that ends up."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

import psutil

MARK = "PALIMPSEST_BENCH_RUN"
YOUNG_S = 5.0  # a process that was forked and is not yet its own program has its parent's environment


class Command:
    """A command under way: its processes are known by a variable in their environment.

    Attributes:
        began: seconds since 1970.
    """

    def __init__(self, arguments: Sequence[str], folder: Path, on_line: Callable[[str], None] = print) -> None:
        self._mark = uuid4().hex
        self._seen: dict[int, float] = {}
        self._foreign: set[int] = set()
        self.began = time.time()
        self._process = subprocess.Popen(
            arguments,
            cwd=folder,
            env=os.environ | {MARK: self._mark, "PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "140"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._threads = [threading.Thread(target=self._read, args=(on_line,)), threading.Thread(target=self._sample)]
        for thread in self._threads:
            thread.start()

    def wait(self) -> tuple[float, float]:
        """Wall and CPU seconds, once it is done.

        Raises:
            RuntimeError: it failed.
        """
        status = self._process.wait()
        wall = time.time() - self.began
        for thread in self._threads:
            thread.join()
        if status:
            raise RuntimeError(f"{self._process.args} ended with {status}")
        return wall, self.cpu_s()

    def cpu_s(self) -> float:
        """CPU seconds of all its processes so far, also of those that ended: as last seen, twice a second."""
        self._look()
        return sum(self._seen.values())

    def _read(self, on_line: Callable[[str], None]) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            on_line(line.rstrip())

    def _sample(self) -> None:
        while self._process.poll() is None:
            self._look()
            time.sleep(0.5)

    def _look(self) -> None:
        for process in psutil.process_iter():
            if process.pid not in self._foreign:
                self._look_at(process)

    def _look_at(self, process: psutil.Process) -> None:
        try:
            if process.pid not in self._seen and process.environ().get(MARK) != self._mark:
                if time.time() - process.create_time() > YOUNG_S:
                    self._foreign.add(process.pid)
                return
            times = process.cpu_times()
        except psutil.Error:
            return  # it is gone, or of another user
        self._seen[process.pid] = times.user + times.system
