"""mmengine hooks of a step: its state saved and put back, the weights averaged, the losses collected."""

from __future__ import annotations

import random
import time
from collections import defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.models import BaseDetector
from mmengine.hooks import Hook
from mmengine.model import ExponentialMovingAverage
from mmengine.runner import Runner

from trainables.checkpoints import read_checkpoint
from trainables.errors import CheckpointError, in_a_line
from trainables.files import written_whole
from trainables.ranks import of_each, world

AfterEpoch = Callable[[BaseDetector, int, dict[str, float]], None]
"""Called with the detector to score, the epochs done and the mean of every loss over its last 50 iterations, of this
rank's share of the batches."""


class ClockHook(Hook):
    """Adds up the seconds of forward, backward and optimizer.

    Attributes:
        seconds: so far.
    """

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self.seconds = 0.0

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Start the clock."""
        self._begin = time.perf_counter()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Stop it."""
        self.seconds += time.perf_counter() - self._begin


class AverageHook(Hook):
    """Keeps an exponential moving average of the student's weights, which becomes the student at the end.

    Args:
        momentum: share of the new weights in each update.
    """

    priority = "LOW"

    def __init__(self, momentum: float) -> None:
        self.momentum = momentum
        self.average: Any = None  # an ExponentialMovingAverage, once training starts

    def before_train(self, runner: Runner) -> None:
        """Start from the student."""
        self.average = ExponentialMovingAverage(runner.model.student, self.momentum)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Move the average."""
        self.average.update_parameters(runner.model.student)

    def after_train(self, runner: Runner) -> None:
        """Hand the average over."""
        runner.model.student.load_state_dict(self.average.module.state_dict())


class StateHook(Hook):
    """Saves all that the rest of a step depends on after every epoch, and puts it back before training."""

    priority = "VERY_LOW"

    def __init__(
        self,
        state: Path,
        after_epoch: AfterEpoch,
        lr: float,
        weight_decay: float,
        stop: int,
        averaging: AverageHook | None = None,
    ) -> None:
        self.state = state
        self.after_epoch = after_epoch
        self.lr, self.weight_decay, self.stop = lr, weight_decay, stop
        self.averaging = averaging
        self.first_iter = 0
        self.recent: defaultdict[str, deque[torch.Tensor]] = defaultdict(lambda: deque(maxlen=50))

    def before_train(self, runner: Runner) -> None:
        """Go on from the saved state where there is one.

        Raises:
            CheckpointError: it cannot be used.
        """
        if not self.state.exists():
            return
        try:
            self._restore(runner, read_checkpoint(self.state))
        except Exception as error:
            said = "; ".join(error.problems) if isinstance(error, CheckpointError) else in_a_line(error)
            problem = f"cannot be used to go on ({said}); delete it to start the step again"
            raise CheckpointError(str(self.state), [problem]) from error

    def before_train_epoch(self, runner: Runner) -> None:
        """Forget the losses of the epoch before."""
        self.recent.clear()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Collect the losses."""
        for name, value in outputs.items():
            self.recent[name].append(value)

    def after_train_epoch(self, runner: Runner) -> None:
        """Save, tell the listener, and end training where it is to end before the last epoch."""
        done = runner.epoch + 1
        if done < runner.max_epochs:
            random_states = of_each(_random_state())
            if world()[0] == 0:
                with written_whole(self.state) as aside, aside.open("wb") as file:  # torch tells of a full disk only so
                    torch.save(self._state(runner, done, random_states), file)
        means = {name: float(torch.stack(tuple(values)).float().mean()) for name, values in self.recent.items()}
        self.after_epoch(self.averaging.average.module if self.averaging else runner.model.student, done, means)
        runner.train_loop.stop_training = done >= self.stop

    def _state(self, runner: Runner, done: int, random_states: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "weights": runner.model.student.state_dict(),
            "average": self.averaging.average.state_dict() if self.averaging else None,
            "optimizer": runner.optim_wrapper.state_dict(),
            "schedulers": [scheduler.state_dict() for scheduler in runner.param_schedulers],
            "lr": self.lr,
            "epoch": done,
            "iter": runner.iter,
            "random": random_states,
        }

    def _restore(self, runner: Runner, saved: dict[str, Any]) -> None:
        runner.model.student.load_state_dict(saved["weights"])
        if self.averaging:
            self.averaging.average.load_state_dict(saved["average"])
        runner.optim_wrapper.load_state_dict(saved["optimizer"])
        for scheduler, values in zip(runner.param_schedulers, saved["schedulers"], strict=True):
            scheduler.load_state_dict(values)
        if saved["lr"] != self.lr:
            _scale_rate(runner, self.lr / saved["lr"])
        for group in runner.optim_wrapper.param_groups:
            group["weight_decay"] = self.weight_decay
        runner.train_loop._epoch, runner.train_loop._iter = saved["epoch"], saved["iter"]
        self.first_iter = saved["iter"]
        _set_random_state(saved["random"][world()[0]])


def _scale_rate(runner: Runner, factor: float) -> None:
    """Go on at another rate: schedules compute each rate from the one before and from the first."""
    for group in runner.optim_wrapper.param_groups:
        group["lr"] *= factor
        group["initial_lr"] *= factor
    for scheduler in runner.param_schedulers:
        scheduler.base_values = [value * factor for value in scheduler.base_values]


def _random_state() -> dict[str, Any]:
    generator: Any = np.random.get_state()
    kind, keys, position, has_gauss, gauss = generator
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all(),
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss],
        "python": random.getstate(),
    }


def _set_random_state(saved: dict[str, Any]) -> None:
    torch.set_rng_state(saved["torch"])
    torch.cuda.set_rng_state_all(saved["cuda"])
    kind, keys, position, has_gauss, gauss = saved["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    random.setstate(saved["python"])
