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
from trainables.detectors.forward import Distiller, Forward, Samples, rounded
from trainables.detectors.gfl_losses import Assigner, Targets
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
        targets: what the locations of a batch should say, from a table; assigned anew without it.
        responses: what the teacher says of a batch, from a table; there is no live teacher then.
        response_dtype: what a live teacher's logits are rounded to.
    """

    def __init__(
        self,
        student: BaseDetector,
        trained: Tensor,
        old: Tensor,
        teacher: BaseDetector | None = None,
        distiller: Distiller | None = None,
        gt_options: dict[str, bool] | None = None,
        targets: Assigner | None = None,
        responses: Callable[[Samples], Any] | None = None,
        response_dtype: str = "float32",
    ) -> None:
        super().__init__(data_preprocessor=student.data_preprocessor)
        self.student = student
        self.register_buffer("trained", trained, persistent=False)
        self.register_buffer("old", old, persistent=False)
        self.distiller = distiller
        self.gt_options = gt_options or {}
        self.targets, self.responses, self.response_dtype = targets or self._assigned, responses, response_dtype
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
            targets = self.targets(student, data_samples)
            losses = gfl_losses.losses(student, targets, self.trained, **self.gt_options)
        return losses | self._distilled(student, inputs, data_samples)

    def _assigned(self, student: Forward, samples: Samples) -> Targets:
        return gfl_losses.assign(self.student.bbox_head, samples, student.centers.device)

    def _distilled(self, student: Forward, inputs: Tensor, samples: Samples) -> dict[str, Tensor]:
        if self.distiller is None:
            return {}
        if self.responses is not None:
            teacher = self.responses(samples)
        else:
            with torch.no_grad():
                teacher = rounded(gfl_losses.forward(self.teacher, inputs), self.response_dtype)
        with torch.autocast(inputs.device.type, enabled=False):
            return self.distiller(student, teacher, self.old, samples)

    def train_step(self, data: Any, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """Losses by name after one optimizer step.

        Raises:
            TrainingError: a loss that is not finite, by name.
        """
        with optim_wrapper.optim_context(self):
            losses = self(**self._preprocessed(data), mode="loss")
        total = sum(value for name, value in losses.items() if name.startswith("loss"))
        if not torch.isfinite(total):
            bad = [f"{name} is {value.item()}" for name, value in losses.items() if not torch.isfinite(value)]
            bad = bad or [f"the sum of the losses is {total.item()}"]
            raise TrainingError("losses", [f"must be finite, but {' and '.join(bad)}"])
        optim_wrapper.update_params(total)
        return {name: value.detach() for name, value in losses.items()}

    def _preprocessed(self, data: Any) -> dict[str, Any]:
        """The batch on the device, normalised; the samples' boxes are left behind where a table has the targets."""
        if self.targets == self._assigned:
            return self.data_preprocessor(data, True)
        images = self.data_preprocessor({"inputs": data["inputs"]}, True)["inputs"]
        return {"inputs": images, "data_samples": data["data_samples"]}
