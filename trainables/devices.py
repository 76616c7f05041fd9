"""The Ray Train door: what a trial of several devices runs in, a process for each of them on one node."""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from trainables.config import Runtime, TrialConfig

PATIENCE = timedelta(days=7)  # of those who follow: while the first rank scores, they wait for its next call


def on_devices(
    config: TrialConfig, runtime: Runtime, function: Callable[..., Any], *arguments: Any, held: Path | None = None
) -> Any:
    """`function(*arguments)`: here where `config` trains on one device, else on the first of as many ranks.

    There its `run_trial` and `run_step` train on all of them.

    Args:
        held: a file for what `release` wants to know.

    Raises:
        Exception: as a rank raised it, the lowest first.
        RayError: a rank or its node was lost.
    """
    if config.devices == 1:
        return function(*arguments)
    return _launched(config, runtime, partial(_lead_or_follow, config.threads, function, arguments), held)


def release(held: Path) -> None:
    """Give back the devices of a trial that was stopped from outside: Ray would keep them until the job ends."""
    from ray import PlacementGroupID
    from ray.util import placement_group_table, remove_placement_group
    from ray.util.placement_group import PlacementGroup

    if held.exists():
        group = PlacementGroup(PlacementGroupID.from_hex(held.read_text(encoding="utf-8")))
        if placement_group_table(group).get("state") != "REMOVED":
            remove_placement_group(group)
        held.unlink()


def report(told: dict[str, Any]) -> None:
    """Report to Tune, from a trial's own process or from the first of its ranks."""
    from ray import train, tune

    from trainables import ranks

    if ranks.world()[1] == 1:
        tune.report(told)
        return
    ranks.announce(train.report, {})  # Ray Train waits for all of them
    train.report(told)


def _lead_or_follow(threads: int, function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    from trainables import ranks
    from trainables.environment import prepare_process

    if ranks.world()[0]:
        prepare_process(threads)
        return ranks.follow()
    result = function(*arguments)
    ranks.dismiss()
    return result


def _launched(config: TrialConfig, runtime: Runtime, work: Callable[[], Any], held: Path | None) -> Any:
    from ray.exceptions import RayError
    from ray.train import RunConfig, ScalingConfig, WorkerGroupError
    from ray.train.torch import TorchConfig, TorchTrainer

    gpu = config.device == "cuda"
    each = {"CPU": max(runtime.workers, 1) if gpu else config.threads, "GPU": float(gpu)}
    with tempfile.TemporaryDirectory(prefix="palimpsest-ranks-") as folder:
        trainer = TorchTrainer(
            work,
            torch_config=TorchConfig("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout_s=int(PATIENCE.total_seconds())),
            scaling_config=ScalingConfig(
                num_workers=config.devices, use_gpu=gpu, resources_per_worker=each, placement_strategy="STRICT_PACK"
            ),
            run_config=RunConfig(storage_path=folder, callbacks=_callbacks(held)),
        )
        on_interrupt = signal.getsignal(signal.SIGINT)
        try:
            return trainer.fit().return_value
        except WorkerGroupError as error:
            failures = [error.worker_failures[rank] for rank in sorted(error.worker_failures)]
            raise next((one for one in failures if not isinstance(one, RayError)), failures[0]) from error
        finally:
            if threading.current_thread() is threading.main_thread():  # where Ray Train leaves its own
                signal.signal(signal.SIGINT, on_interrupt)


def _callbacks(held: Path | None) -> list[Any]:
    """What hands reports on to Tune, and says what is held, where this is one of its trials."""
    if held is None:
        return []
    from ray.train.v2._internal.execution.callback import WorkerGroupCallback
    from ray.tune.integration.ray_train import TuneReportCallback

    file = held

    class Held(WorkerGroupCallback):
        def after_worker_group_start(self, worker_group: Any) -> None:
            group = worker_group.get_worker_group_state().placement_group_handle.placement_group
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(group.id.hex(), encoding="utf-8")

    return [TuneReportCallback(), Held()]
