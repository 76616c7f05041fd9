"""Center resampling and collaborative distillation, against the head of the original.

`ilyolox_select`: the rules on one image. `ilyolox_ckd_elem`: the weights and terms row by row. `ilyolox_distill`: a
batch from the teacher's boxes to every loss and gradient. The original's weights are not detached; of the edge cases
without any box it divides objectness by float32's epsilon.
"""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.task_modules import SimOTAAssigner
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from search_spaces.ilyolox import ILYOLOXParams
from tests.parity.comparison import BOX_GRADIENT, BOXES, EXACT, GRADIENT, LOSS, Comparison, Oracle
from trainables.detectors.forward import Batch, CodedForward
from trainables.detectors.yolox_losses import AssignedTargets, assign, losses
from trainables.distillation.ckd import CKD, class_target, terms
from trainables.distillation.teacher_boxes import TeacherBoxes, of_teacher, select

RULES = ("all_by_one", "all_mean_std", "cls_mean_std", "re_sampling")
HYBRIDS = {"plain": "none", "hy1": "hy1", "hy2": "hy2", "hy3": "hy3", "onehot": "onehot"}


def check(oracle: Oracle) -> Comparison:
    """The comparison of whatever the file is about."""
    comparison = Comparison(oracle)
    if "cls_prob" in oracle:
        _check_selection(comparison, oracle)
    elif "student_boxes" in oracle:
        _check_rows(comparison, oracle)
    else:
        _check_batch(comparison, oracle)
    return comparison


def _params(oracle: Oracle, **more: Any) -> ILYOLOXParams:
    names = {
        "score_thr": "score_thr", "score_thr_center": "thr_center", "score_thr_other": "thr_other",
        "iou_thr_other": "iou_other", "nms_iou": "nms_iou", "alpha_cls": "alpha_cls", "alpha_loc": "alpha_loc",
        "w_cd": "w_cd", "w_iou": "w_iou",
    }  # fmt: skip
    given = {ours: oracle[theirs].item() for theirs, ours in names.items() if theirs in oracle}
    return ILYOLOXParams(**{**given, "ckd_detach": False, **more})


def _check_selection(comparison: Comparison, oracle: Oracle) -> None:
    probabilities, objectness, boxes = (torch.from_numpy(oracle[name]) for name in ("cls_prob", "obj_prob", "boxes"))
    output = _forward(oracle, "", batched=False)
    comparison.compare("boxes", output.boxes[0], BOXES)
    likeliest, label = probabilities.max(-1)
    for rule in RULES:
        spread = 2.0 if rule == "all_mean_std" else 1.0
        old = torch.from_numpy(oracle["prev_labels"]).sort().values
        kept = select(probabilities, objectness, boxes, _params(oracle, select=rule, std_mult=spread), old)
        mask = torch.zeros(len(boxes), dtype=torch.long).index_fill(0, kept, 1)
        comparison.compare(f"exp_{rule}_keep_mask", mask, EXACT)
        comparison.compare(f"exp_{rule}_boxes", boxes[kept], BOXES)
        comparison.compare(f"exp_{rule}_labels", label[kept], EXACT)
        comparison.compare(f"exp_{rule}_scores", (likeliest * objectness)[kept], LOSS)
    for name in ("exp_all_mean_std_thr", "exp_cls_mean_std_thr"):
        comparison.ignore(name, "thresholds are not told apart; the kept locations are")


def _check_rows(comparison: Comparison, oracle: Oracle) -> None:
    def tensor(name: str) -> Tensor:
        return torch.from_numpy(oracle[name])

    for prefix in ("", "mix_"):
        for tag, hybrid in HYBRIDS.items():
            params = _params(oracle, ckd=prefix == "mix_", hybrid=hybrid)
            logits, boxes = tensor("student_cls_logits").requires_grad_(), tensor("student_boxes").requires_grad_()
            teacher = tensor("teacher_cls_logits")
            found = terms(logits, teacher, boxes, tensor("teacher_boxes"), params)
            number = oracle["N_old"].item()
            cd = params.alpha_cls * params.w_cd * found[0].sum() / number
            iou = params.alpha_loc * params.w_iou * found[1].sum() / number
            _compare_terms(comparison, oracle, f"{prefix}{tag}", cd, iou, logits, boxes, "boxes")
            _compare_target(comparison, oracle, prefix, tag, class_target(teacher, hybrid), "target")
            _compare_weights(comparison, oracle, prefix, tag, found[2], found[3])


def _compare_terms(
    comparison: Comparison, oracle: Oracle, tag: str, cd: Tensor, iou: Tensor, logits: Tensor, boxes: Tensor, of: str
) -> None:
    for name, loss in (("loss_cd_soft", cd), ("loss_ld_iou", iou)):
        if f"exp_{tag}_{name}" in oracle:
            comparison.compare(f"exp_{tag}_{name}", loss.item(), LOSS)
        for what, leaf, tolerance in (("cls", logits, GRADIENT), (of, boxes, BOX_GRADIENT)):
            key = f"exp_grad_{tag}_{name}_wrt_{what}"
            if key in oracle:
                gradient = torch.autograd.grad(loss, leaf, retain_graph=True)[0]
                comparison.compare(key, gradient, tolerance)


def _compare_target(comparison: Comparison, oracle: Oracle, prefix: str, tag: str, target: Tensor, name: str) -> None:
    if f"exp_{prefix}{tag}_{name}" in oracle:
        comparison.compare(f"exp_{prefix}{tag}_{name}", target, LOSS)


def _compare_weights(
    comparison: Comparison, oracle: Oracle, prefix: str, tag: str, w_cls: Tensor, w_loc: Tensor
) -> None:
    if tag == "hy3":
        comparison.compare("exp_hy3_w_cls", w_cls.detach(), LOSS)
    elif prefix == "mix_" and tag == "plain":
        comparison.compare("exp_w_cls", w_cls.detach(), LOSS)
        comparison.compare("exp_w_loc", w_loc.detach(), LOSS)


def _forward(oracle: Oracle, who: str, batched: bool = True) -> CodedForward:
    def tensor(name: str) -> Tensor:
        found = torch.from_numpy(oracle[f"{who}{name}"])
        return found if batched else found[None]

    priors = torch.from_numpy(oracle["priors"])
    return CodedForward(
        tensor("cls_logits"), tensor("box_raw"), priors[:, :2], priors[:, 2], (len(priors),),
        obj_logits=tensor("obj_logits"),
    )  # fmt: skip


class _Head:
    """What `assign` asks of a detector's head."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.assigner = SimOTAAssigner(center_radius=2.5)


def _samples(oracle: Oracle) -> list[DetDataSample]:
    shape = tuple(oracle["img_size_hw"].tolist())
    samples = []
    for image, count in enumerate(oracle["gt_count"].tolist()):
        sample = DetDataSample(metainfo={"img_shape": shape, "batch_input_shape": shape})
        boxes, labels = (torch.from_numpy(oracle[name])[image, :count] for name in ("gt_boxes", "gt_labels"))
        sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
        samples.append(sample)
    return samples


def _check_batch(comparison: Comparison, oracle: Oracle) -> None:
    rule = bytes(oracle["teacher_method"]).decode()
    params = _params(oracle, select=rule)
    classes, old = oracle["num_classes"].item(), torch.from_numpy(oracle["prev_labels"])
    teacher = _forward(oracle, "teacher_")
    completed = TeacherBoxes(params, torch.arange(classes), old)(teacher, _samples(oracle))
    _compare_pseudo_labels(comparison, oracle, completed, teacher)
    student = _forward(oracle, "student_")
    leaves = [value.requires_grad_() for value in (student.cls_logits, student.box_logits, student.obj_logits)]
    targets = assign(_Head(classes), student, completed)  # type: ignore[arg-type]
    for image in range(len(completed)):
        comparison.compare(f"exp_assigned_gt_{image}", targets.assigned[image] + 1, EXACT)
        comparison.compare(f"exp_assigned_iou_{image}", targets.ious[image], LOSS)
    _compare_base_losses(comparison, oracle, student, targets, completed, leaves)
    _compare_distillation(comparison, oracle, student, teacher, targets, completed, leaves)


def _compare_pseudo_labels(
    comparison: Comparison, oracle: Oracle, completed: list[DetDataSample], teacher: CodedForward
) -> None:
    found = [sample.gt_instances[sample.gt_instances.prior >= 0] for sample in completed]
    counts = [len(one) for one in found]
    comparison.compare("exp_pseudo_count", counts, EXACT)
    mask = torch.zeros(teacher.cls_logits.shape[:2], dtype=torch.long)
    boxes, labels = (
        torch.from_numpy(oracle["exp_pseudo_boxes"]).clone(),
        torch.from_numpy(oracle["exp_pseudo_labels"]).clone(),
    )
    for image, one in enumerate(found):
        mask[image, one.prior] = 1
        boxes[image, : len(one)], labels[image, : len(one)] = one.bboxes, one.labels
    comparison.compare("exp_teacher_keep_mask", mask, EXACT)
    comparison.compare("exp_pseudo_boxes", boxes, BOXES)
    comparison.compare("exp_pseudo_labels", labels, EXACT)


def _compare_base_losses(
    comparison: Comparison,
    oracle: Oracle,
    student: CodedForward,
    targets: AssignedTargets,
    completed: list[DetDataSample],
    leaves: list[Tensor],
) -> None:
    trained = torch.ones(student.cls_logits.shape[-1], dtype=torch.bool)
    names = {"loss_cls": "loss_cls", "loss_obj": "loss_obj", "loss_bbox": "loss_iou"}
    every: dict[str, ILYOLOXParams] = {"": _params(oracle), "posandprev_": _params(oracle, which="posandprev")}
    for kind in ("labelw", "labelw_frac"):
        if f"{kind}_alpha_cls" in oracle:
            alphas = {f"alpha_{part}": oracle[f"{kind}_alpha_{part}"].item() for part in ("cls", "loc")}
            every[f"{kind}_"] = _params(oracle, which="labelwprev", **alphas)
    for prefix, params in every.items():
        weighed = TeacherBoxes(params, torch.arange(len(trained))).weighed(targets, completed, trained)
        found = losses(student, weighed, trained)
        for ours, theirs in names.items():
            key = f"exp_{prefix}{theirs}"
            if key not in oracle:
                continue
            if prefix == "labelw_frac_" and ours == "loss_cls":
                comparison.ignore(key, "the original's integer weights make 0 of 0.5")
                continue
            if ours == "loss_obj" and not targets.num_pos:
                comparison.ignore(key, "the original divides by float32's epsilon")
                continue
            comparison.compare(key, found[ours].item(), LOSS)
        if not prefix:
            _compare_gradients(comparison, oracle, found, leaves, bool(targets.num_pos))


def _compare_gradients(
    comparison: Comparison, oracle: Oracle, found: dict[str, Tensor], leaves: list[Tensor], any_positive: bool
) -> None:
    pairs = {
        "loss_cls_wrt_cls": ("loss_cls", leaves[0], GRADIENT),
        "loss_iou_wrt_box": ("loss_bbox", leaves[1], BOX_GRADIENT),
        "loss_obj_wrt_obj": ("loss_obj", leaves[2], GRADIENT),
    }
    for name, (ours, leaf, tolerance) in pairs.items():
        key = f"exp_grad_{name}"
        if key not in oracle:
            continue
        if ours == "loss_obj" and not any_positive:
            comparison.ignore(key, "the original divides by float32's epsilon")
            continue
        comparison.compare(key, torch.autograd.grad(found[ours], leaf, retain_graph=True)[0], tolerance)


def _compare_distillation(
    comparison: Comparison,
    oracle: Oracle,
    student: CodedForward,
    teacher: CodedForward,
    targets: AssignedTargets,
    completed: list[DetDataSample],
    leaves: list[Tensor],
) -> None:
    mask, priors = of_teacher(targets, completed)
    comparison.compare("exp_N_old", int(mask.sum()), EXACT)
    image, place = mask.nonzero(as_tuple=True)
    taught = teacher.cls_logits[image, priors[image, place]]
    if "exp_old_teacher_boxes" in oracle:
        comparison.compare("exp_old_teacher_boxes", teacher.boxes[image, priors[image, place]], BOXES)
        comparison.compare("exp_old_student_boxes", student.boxes[image, place].detach(), BOXES)
    channels = torch.arange(student.cls_logits.shape[-1])
    for prefix in ("", "mix_"):
        for tag, hybrid in HYBRIDS.items():
            params = _params(oracle, ckd=prefix == "mix_", hybrid=hybrid)
            found = CKD(params)(student, teacher, channels, Batch(completed, targets))
            _compare_terms(
                comparison,
                oracle,
                f"{prefix}{tag}",
                found["loss_cd_soft"],
                found["loss_ld_iou"],
                leaves[0],
                leaves[1],
                "box",
            )
            _compare_target(comparison, oracle, prefix, tag, class_target(taught, hybrid), "cd_target")
            own, boxes = student.cls_logits[image, place], student.boxes[image, place]
            rows = terms(own, taught, boxes, teacher.boxes[image, priors[image, place]], params)
            if "exp_w_cls" in oracle or "exp_hy3_w_cls" in oracle:
                _compare_weights(comparison, oracle, prefix, tag, rows[2], rows[3])
