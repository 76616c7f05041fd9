"""Learning without forgetting, for detectors: keep the raw outputs close to the teacher's.

Source: Li, Hoiem, ECCV 2016, arXiv 1606.09282; in the form for detectors of repository pastifra/Continual_Nanodet.
Shape suffixes as in `trainables.detectors.forward`.
"""

from __future__ import annotations

from torch import Tensor

from search_spaces.lwf import LwFParams
from trainables.detectors.forward import Batch, Forward

BOX_OUTPUTS = {"box_logits", "obj_logits"}


def output_terms(student: Forward, teacher: Forward, old: Tensor, with_boxes: bool) -> Tensor:
    """The mean over images, locations and channels of the squared difference of raw outputs; 0 without channels."""
    total = (student.cls_logits[..., old] - teacher.cls_logits.detach()).square().sum()
    count = teacher.cls_logits.numel()
    if with_boxes:
        for name in teacher.logits.keys() & BOX_OUTPUTS:
            total = total + (student.logits[name] - teacher.logits[name].detach()).square().sum()
            count += teacher.logits[name].numel()
    return total / max(count, 1)


class LwF:
    """The distiller: `loss_lwf`."""

    def __init__(self, params: LwFParams) -> None:
        self.params = params

    def __call__(self, student: Forward, teacher: Forward, old: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"loss_lwf": self.params.w_out * output_terms(student, teacher, old, self.params.reg_term)}
