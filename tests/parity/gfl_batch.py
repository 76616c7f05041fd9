"""A batch of an oracle file on GFL's head, as the code takes it: what ERD's and LD's files share."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from mmdet.models import GFLHead
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from tests.parity.comparison import BOX_GRADIENT, GRADIENT, LOSS, Comparison, Oracle
from trainables.detectors.forward import Forward, Targets
from trainables.detectors.gfl_losses import GFLTerms, assign


class GFLBatch:
    """The inputs of an `erd_loss` or `ld_loss` file. Labels of the file begin at the student's channel `first`."""

    def __init__(self, oracle: Oracle, num_classes: int, first: int = 0) -> None:
        self.oracle, self.num_classes, self._first = oracle, num_classes, first
        self.cls_logits = self.tensor("student_cls_logits").requires_grad_()
        self.box_logits = self.tensor("student_box_logits").requires_grad_()
        self.student = self._forward("student", self.cls_logits, self.box_logits)
        teacher = self.tensor("teacher_cls_logits"), self.tensor("teacher_box_logits")
        self.teacher = self._forward("teacher", *teacher)

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.oracle[name])

    def scalar(self, name: str) -> Any:
        return self.oracle[name].item()

    def _forward(self, who: str, cls_logits: Tensor, box_logits: Tensor) -> Forward:
        sizes = tuple(int(height * width) for height, width in self.oracle["level_hw"])
        strides = self.tensor("strides").float().repeat_interleave(torch.tensor(sizes))
        anchors = self.tensor("anchors")
        return Forward(
            cls_logits, box_logits, (anchors[:, :2] + anchors[:, 2:]) / 2, strides, sizes, self.features(who)
        )

    def features(self, who: str) -> dict[str, list[Tensor]]:
        """The features of student or teacher; none in most files."""
        return {}

    @cached_property
    def images(self) -> list[DetDataSample]:
        shape = tuple(self.oracle["img_size_hw"].tolist())
        samples = []
        for image, count in enumerate(self.oracle["gt_count"].tolist()):
            sample = DetDataSample(metainfo={"img_shape": shape, "pad_shape": shape, "batch_input_shape": shape})
            labels = self.tensor("gt_labels")[image, :count] + self._first
            sample.gt_instances = InstanceData(bboxes=self.tensor("gt_boxes")[image, :count], labels=labels)
            samples.append(sample)
        return samples

    @cached_property
    def targets(self) -> Targets:
        head = GFLHead(
            num_classes=self.num_classes,
            in_channels=8,
            feat_channels=8,
            stacked_convs=1,
            norm_cfg={"type": "GN", "num_groups": 1},
            anchor_generator={
                "type": "AnchorGenerator", "ratios": [1.0], "octave_base_scale": 8, "scales_per_octave": 1,
                "strides": self.oracle["strides"].tolist(),
            },
            train_cfg={
                "assigner": {"type": "ATSSAssigner", "topk": self.scalar("atss_topk")},
                "allowed_border": -1, "pos_weight": -1, "debug": False,
            },
        )  # fmt: skip
        return assign(head, self.images, self.student.centers.device)


def compare_ground_truth_losses(comparison: Comparison, batch: GFLBatch, terms: GFLTerms) -> None:
    """Each loss by level and summed, and its gradient."""
    for kind, values in {"cls": terms.cls, "bbox": terms.bbox, "dfl": terms.dfl}.items():
        levels = [level.sum().item() for level in values.split(batch.student.level_sizes, dim=1)]
        comparison.compare(f"exp_loss_{kind}_per_level", levels, LOSS)
        comparison.compare(f"exp_sum_loss_{kind}", values.sum().item(), LOSS)
    compare_gradient(comparison, "exp_grad_loss_cls_wrt_cls", terms.cls, batch.cls_logits)
    compare_gradient(comparison, "exp_grad_loss_bbox_wrt_box", terms.bbox, batch.box_logits)
    compare_gradient(comparison, "exp_grad_loss_dfl_wrt_box", terms.dfl, batch.box_logits)


def compare_gradient(comparison: Comparison, name: str, loss: Tensor, logits: Tensor) -> None:
    """Compare the gradient of the sum of `loss`; where it does not depend on `logits`, it is zero."""
    (gradient,) = torch.autograd.grad(loss.sum(), logits, retain_graph=True, allow_unused=True)
    gradient = torch.zeros_like(logits) if gradient is None else gradient
    comparison.compare(name, gradient, BOX_GRADIENT if "loss_bbox" in name else GRADIENT)
