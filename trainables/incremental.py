"""One wrapper for every method: a student that learns, a teacher that stays as it was, a distiller between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmdet.models import BaseDetector
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainables.detectors.families import family_of
from trainables.detectors.forward import Batch, Completes, Distiller, Forward, Samples, Targets, n_pseudo, rounded
from trainables.errors import TrainingError, capped
from trainables.latents import Latents, Stages, gathered


class IncrementalDetector(BaseModel):
    """A student with the losses of one incremental step.

    The teacher is held outside module registration: it is in no state dict, no optimizer and no DDP bucket, never in
    train mode, and moves with the student between devices.

    Args:
        student: detector with the rows of all classes seen so far.
        labelled: (steps, C) of which classes the images of a step carry boxes; a sample's `step`, by default the last,
            says which row is its own.
        scope: `full`: every class channel trains; `labelled`: those whose boxes the image carries.
        old: (C_old,) the student's channels that the teacher's rows stand for, in the teacher's order.
        teacher: the model at the end of the previous step.
        distiller: named losses from both forward passes.
        pseudo_labels: completes the samples with what the teacher detects.
        gt_options: keyword options of the detector's ground-truth losses.
        targets: what the locations of a batch should say, from a table; assigned anew without it.
        responses: what the teacher says of a batch, from a table; there is no live teacher then.
        response_dtype: what a live teacher's logits are rounded to.
        frozen: `backbone` or, of that, all `but_last_stage`: keeps its weights. A whole frozen backbone serves a live
            teacher as well.
        backbone_bn: `eval`: what is frozen keeps its statistics too; `train`: it does not, and serves no teacher.
        latents: hold what a whole frozen backbone says of some samples.

    Raises:
        ValueError: a frozen backbone that is not the live teacher's.
    """

    def __init__(
        self,
        student: BaseDetector,
        labelled: Tensor,
        old: Tensor,
        scope: str = "full",
        teacher: BaseDetector | None = None,
        distiller: Distiller | None = None,
        pseudo_labels: Completes | None = None,
        gt_options: dict[str, Any] | None = None,
        targets: Callable[[Forward, Samples], Targets] | None = None,
        responses: Callable[[Samples], Any] | None = None,
        response_dtype: str = "float32",
        frozen: str = "none",
        backbone_bn: str = "eval",
        latents: Sequence[Latents] = (),
    ) -> None:
        super().__init__(data_preprocessor=student.data_preprocessor)
        self.student, self.family = student, family_of(student)
        self.register_buffer("labelled", labelled, persistent=False)
        self.register_buffer("old", old, persistent=False)
        self.scope, self.distiller, self.pseudo_labels = scope, distiller, pseudo_labels
        self.gt_options = gt_options or {}
        self.targets, self.responses, self.response_dtype = targets or self._assigned, responses, response_dtype
        object.__setattr__(self, "teacher", teacher)
        object.__setattr__(self, "synchronised", None)
        part = _frozen_part(student, frozen)
        self._resting = part if backbone_bn == "eval" else []
        self.shares_backbone, self.latents = part == [student.backbone] == self._resting, latents
        if self.shares_backbone and teacher is not None:
            _require_same(student, teacher)

    def train(self, mode: bool = True) -> IncrementalDetector:
        """As torch's; what is frozen keeps its statistics."""
        super().train(mode)
        for module in self._resting:
            module.eval()
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> IncrementalDetector:
        if self.teacher is not None:
            self.teacher._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def synchronise(self) -> None:
        """Average the gradients of all ranks from now on; what does it is outside module registration too."""
        object.__setattr__(self, "synchronised", DistributedDataParallel(self))

    def init_weights(self) -> None:
        """Nothing: the student comes with its weights; mmengine would draw them anew."""

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor") -> Any:
        """Named losses for `mode='loss'`; anything else is the student's own answer."""
        if mode != "loss":
            return self.student(inputs, data_samples, mode)
        stages = self._stages(inputs, data_samples)
        student = self.family.from_stages(self.student, stages)
        teacher = self._told(inputs, data_samples, stages)
        with torch.autocast(inputs.device.type, enabled=False):
            batch, counts = self._ground_truth(student, teacher, data_samples)
            trained = self.trained(data_samples)
            losses = self.family.losses(student, batch.targets, trained, **self.gt_options) | counts
            if self.distiller is not None and len(self.old):
                losses |= self.distiller(student, teacher, self.old, batch)
        return losses

    def _stages(self, images: Tensor, samples: Samples) -> Stages:
        """The outputs of the student's backbone."""

        def run(places: list[int]) -> Stages:
            some = images if len(places) == len(images) else images[places]
            stages: Stages = self.student.backbone(some)
            return stages

        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.shares_backbone):
            return gathered(self.latents, samples, run)

    def trained(self, samples: Samples) -> Tensor:
        """(B, C) which class channels the ground truth of each image trains."""
        labelled = self._labelled_by(samples)
        if self.scope == "full":
            return torch.ones_like(labelled)
        return labelled.index_fill(1, self.old, True) if self.pseudo_labels else labelled

    def _labelled_by(self, samples: Samples) -> Tensor:
        return self.labelled[[sample.get("step", len(self.labelled) - 1) for sample in samples]]

    def _ground_truth(self, student: Forward, teacher: Any, samples: Samples) -> tuple[Batch, dict[str, Tensor]]:
        """The batch with its targets, and counts to log."""
        if self.pseudo_labels is None:
            return Batch(samples, self.targets(student, samples)), {}
        completed = self.pseudo_labels(teacher, samples)
        targets = self.targets(student, completed)
        targets = self.pseudo_labels.weighed(targets, completed, self._labelled_by(samples))
        return Batch(completed, targets), {"n_pseudo": torch.as_tensor(n_pseudo(samples, completed))}

    def _assigned(self, student: Forward, samples: Samples) -> Targets:
        return self.family.assign(self.student.bbox_head, student, samples)

    def _told(self, inputs: Tensor, samples: Samples, stages: Stages) -> Any:
        """What the teacher says of the batch; `stages` are the outputs of the student's backbone."""
        if self.responses is not None:
            return self.responses(samples)
        if self.teacher is None:
            return None
        with torch.no_grad():
            stages = stages if self.shares_backbone else self.teacher.backbone(inputs)
            return rounded(self.family.from_stages(self.teacher, stages), self.response_dtype)

    def train_step(self, data: Any, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """Losses by name after one optimizer step.

        Raises:
            TrainingError: a loss that is not finite, by name.
        """
        with optim_wrapper.optim_context(self):
            losses = (self.synchronised or self)(**self._preprocessed(data), mode="loss")
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


def _frozen_part(student: BaseDetector, what: str) -> list[nn.Module]:
    """The modules of the backbone that are frozen, from its stem on; they take no gradient any more."""
    modules = list(student.backbone.children())
    part = {"none": [], "but_last_stage": modules[:-1], "backbone": [student.backbone]}[what]
    for module in part:
        module.requires_grad_(False)
    return part


def _require_same(student: BaseDetector, teacher: BaseDetector) -> None:
    own, other = student.backbone.state_dict(), teacher.backbone.state_dict()
    if changed := [name for name, value in own.items() if not torch.equal(value, other[name])]:
        raise ValueError(f"a shared backbone must be the teacher's, but {', '.join(capped(changed, 3))} differ")
