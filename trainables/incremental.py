"""One wrapper for every method: a student that learns, a teacher that stays as it was, a distiller between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmdet.models import BaseDetector
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from torch import Tensor

from trainables.detectors import gfl_losses
from trainables.detectors.forward import Distiller, Forward
from trainables.errors import TrainingError


class IncrementalDetector(BaseModel):
    """A student with the losses of one incremental step.

    The teacher is held outside module registration: it is in no state dict, no optimizer and no DDP bucket, never in
    train mode, and moves with the student between devices.

    Args:
        student: detector with the rows of all classes seen so far.
        trained: (C',) class channels that the step's images train.
        old: (C_old,) the student's channels that the teacher's rows stand for, in the teacher's order.
        teacher: the model at the end of the previous step.
        distiller: named losses from both forward passes.
        gt_options: keyword options of the detector's ground-truth losses.
    """

    def __init__(
        self,
        student: BaseDetector,
        trained: Tensor,
        old: Tensor,
        teacher: BaseDetector | None = None,
        distiller: Distiller | None = None,
        gt_options: dict[str, bool] | None = None,
    ) -> None:
        super().__init__(data_preprocessor=student.data_preprocessor)
        self.student = student
        self.register_buffer("trained", trained, persistent=False)
        self.register_buffer("old", old, persistent=False)
        self.distiller = distiller
        self.gt_options = gt_options or {}
        object.__setattr__(self, "teacher", teacher)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> IncrementalDetector:
        if self.teacher is not None:
            self.teacher._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def init_weights(self) -> None:
        """Nothing: the student comes with its weights; mmengine would draw them anew."""

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor") -> Any:
        """Named losses for `mode='loss'`; anything else is the student's own answer."""
        if mode != "loss":
            return self.student(inputs, data_samples, mode)
        student = gfl_losses.forward(self.student, inputs)
        with torch.autocast(inputs.device.type, enabled=False):
            losses = gfl_losses.losses(self.student, student, data_samples, self.trained, **self.gt_options)
        return losses | self._distilled(student, inputs, data_samples)

    def _distilled(self, student: Forward, inputs: Tensor, data_samples: Any) -> dict[str, Tensor]:
        if self.distiller is None:
            return {}
        with torch.no_grad():
            teacher = gfl_losses.forward(self.teacher, inputs)
        with torch.autocast(inputs.device.type, enabled=False):
            return self.distiller(student, teacher, self.old, data_samples)

    def train_step(self, data: Any, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """Losses by name after one optimizer step.

        Raises:
            TrainingError: a loss that is not finite, by name.
        """
        with optim_wrapper.optim_context(self):
            data = self.data_preprocessor(data, True)
            losses = self(**data, mode="loss")
        total = sum(value for name, value in losses.items() if name.startswith("loss"))
        if not torch.isfinite(total):
            bad = [f"{name} is {value.item()}" for name, value in losses.items() if not torch.isfinite(value)]
            bad = bad or [f"the sum of the losses is {total.item()}"]
            raise TrainingError("losses", [f"must be finite, but {' and '.join(bad)}"])
        optim_wrapper.update_params(total)
        return {name: value.detach() for name, value in losses.items()}
