"""Several sweeps at once on one cluster, each with a driver, a study and records of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from sweeps.cluster import connect_ray
from sweeps.connection import answered, connect
from sweeps.interruption import interruptible
from sweeps.preflight import slots
from sweeps.progress import Display
from sweeps.spec import SweepSpec
from trainables.errors import PalimpsestError
from trainables.files import written_whole

CHILD = "from sweeps.side_by_side import end_with_parent; end_with_parent(); from sweeps.cli import main; main()"


def end_with_parent() -> None:
    """End this process when the one that started it is gone: then its end of our standard input closes.

    A killed driver loses nothing; two at work on one sweep would.
    """

    def watch() -> None:
        while os.read(0, 1024):  # sys.stdin would be locked when the interpreter ends
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_sweeps(specs: Sequence[SweepSpec], resume: bool, display: Display) -> None:
    """Run or go on with all of them, each with its share of the cluster; one that fails does not end the others.

    Raises:
        PalimpsestError: some did not come to their end; each has said why.
        InterruptionError: Ctrl-C or SIGTERM; what there is is saved.
    """
    ray = connect_ray()
    # Tune keeps the actors that it has: without a share, the first sweep would run to its end before the next.
    share, rest = divmod(slots(specs[0], ray), len(specs))
    uri = specs[0].tracking_uri
    answered(uri, lambda: connect(uri).search_experiments())  # one creates a database, not all at once
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    processes, relays = {}, []
    for number, spec in enumerate(specs):
        command = [sys.executable, "-c", CHILD, "run", str(_written(spec))]
        command += ["--max-concurrent", str(max(1, share + (number < rest))), "--max-failures", str(spec.max_failures)]
        command += ["--resume"] if resume else []
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        processes[spec.name] = process
        relays.append(threading.Thread(target=_relay, args=(spec.name, process, display), daemon=True))
        relays[-1].start()
    with interruptible(", ".join(processes), display.again):
        try:
            statuses = _waited(processes)
        finally:
            for relay in relays:
                relay.join()
    if failed := [name for name, status in statuses.items() if status]:
        raise PalimpsestError(", ".join(failed), ["did not come to an end; see above"])


def _written(spec: SweepSpec) -> Path:
    """The sweep file of one of them."""
    path = spec.storage / "sweeps" / f"{spec.name}.yaml"
    with written_whole(path) as aside:
        aside.write_text(spec.text, encoding="utf-8")
    return path


def _relay(name: str, process: subprocess.Popen[str], display: Display) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        display.say(f"{name} | {line.rstrip()}")


def _waited(processes: dict[str, subprocess.Popen[str]]) -> dict[str, int]:
    """The exit status of each.

    Raises:
        KeyboardInterrupt: a person interrupted; all were told to save, and have ended.
    """
    try:
        return {name: process.wait() for name, process in processes.items()}
    except KeyboardInterrupt:
        for process in processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
        for process in processes.values():
            process.wait()
        raise
