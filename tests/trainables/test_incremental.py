"""A step of training: the teacher stays as it is, the student learns what its batch says, and nothing else."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from mmdet.models import BaseDetector
from mmengine.optim import OptimWrapper
from torch import Tensor

from search_spaces.erd import PRESETS, ERDParams
from search_spaces.ld import LDParams
from search_spaces.lwf import LwFParams
from search_spaces.pseudo_label import PseudoLabelParams
from search_spaces.sid import SIDParams
from tests.trainables.batches import images, sample, tiny
from trainables.detectors.forward import Distiller
from trainables.detectors.growth import StateDict, frozen, grown, load_weights
from trainables.distillation.erd import ERD
from trainables.distillation.ld import LD
from trainables.distillation.lwf import LwF
from trainables.distillation.pseudo_label import PseudoLabels
from trainables.distillation.sid import SID
from trainables.errors import TrainingError
from trainables.incremental import IncrementalDetector

NUM_OLD, NUM_CLASSES = 5, 8
OLD, NEW = torch.arange(NUM_OLD), torch.arange(NUM_OLD, NUM_CLASSES)
LABELLED = torch.stack([torch.arange(NUM_CLASSES) < NUM_OLD, torch.arange(NUM_CLASSES) >= NUM_OLD])
TWO = sample([(3.0, 5.0, 30.0, 33.0), (20.0, 28.0, 61.0, 60.0)], [5, 7])
NONE = sample([], [])
GFL = ("loss_cls", "loss_bbox", "loss_dfl")


@pytest.fixture(scope="module")
def base() -> BaseDetector:
    return tiny(NUM_OLD)


@pytest.fixture(scope="module")
def teacher_weights(base: BaseDetector) -> StateDict:
    """Weights under which the teacher responds more strongly here than there."""
    weights = {name: value.clone() for name, value in base.state_dict().items()}
    for name in ("bbox_head.gfl_cls.weight", "bbox_head.gfl_reg.weight"):
        weights[name] = weights[name] * 20
    return weights


def copied(base: BaseDetector, weights: StateDict) -> BaseDetector:
    detector = copy.deepcopy(base)
    load_weights(detector, weights, "base")
    return detector


@pytest.fixture(scope="module")
def untrained(base: BaseDetector, teacher_weights: StateDict) -> BaseDetector:
    torch.manual_seed(0)
    detector = tiny(NUM_CLASSES)
    load_weights(detector, grown("gfl_r18_tiny", teacher_weights, NUM_CLASSES, "focal_prior"), "base")
    return detector


@pytest.fixture
def student(untrained: BaseDetector) -> BaseDetector:
    """A detector that has just grown, as it is at the start of a step."""
    return copy.deepcopy(untrained)


@pytest.fixture
def teacher(base: BaseDetector, teacher_weights: StateDict) -> BaseDetector:
    return frozen(copied(base, teacher_weights))


@pytest.fixture
def model(student: BaseDetector, teacher: BaseDetector) -> IncrementalDetector:
    return IncrementalDetector(student, LABELLED, OLD, "labelled", teacher, ERD(ERDParams()))


def shaken(detector: BaseDetector) -> None:
    """Move a detector away from where it started."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in detector.bbox_head.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


def raw_batch(*samples: Any) -> dict[str, Any]:
    pixels = [(image * 64 + 127).clamp(0, 255).byte() for image in images(len(samples))]
    return {"inputs": pixels, "data_samples": list(copy.deepcopy(samples))}


def losses_of(model: IncrementalDetector, *samples: Any) -> dict[str, Tensor]:
    return model(images(len(samples)), list(samples), mode="loss")


def old_rows(model: IncrementalDetector, loss: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of the classifier's rows of old classes."""
    classifier = model.student.bbox_head.gfl_cls
    gradients = torch.autograd.grad(loss, [classifier.weight, classifier.bias], retain_graph=True, allow_unused=True)
    zeros = (torch.zeros_like(classifier.weight), torch.zeros_like(classifier.bias))
    return tuple(zero[OLD] if g is None else g[OLD] for g, zero in zip(gradients, zeros, strict=True))


def test_the_teacher_is_in_no_register(
    model: IncrementalDetector, student: BaseDetector, teacher: BaseDetector
) -> None:
    assert model.state_dict().keys() == {f"student.{name}" for name in student.state_dict()}
    of_teacher = {id(tensor) for tensor in (*teacher.parameters(), *teacher.buffers())}
    assert of_teacher
    assert not of_teacher & {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    assert not any(module is teacher for module in model.modules())
    assert len(list(model.parameters())) == len(list(student.parameters()))


def test_the_teacher_rests_whatever_the_student_does(model: IncrementalDetector) -> None:
    for mode in (True, False, True):
        model.train(mode)
        assert model.student.training is mode
        assert not any(module.training for module in model.teacher.modules())
    model.requires_grad_(True)
    assert not any(p.requires_grad for p in model.teacher.parameters())


def test_the_teacher_moves_with_the_student(model: IncrementalDetector) -> None:
    model.double()
    assert {p.dtype for p in model.teacher.parameters()} == {torch.float64}
    model.to("meta")
    for part in (model.student, model.teacher):
        assert {tensor.device.type for tensor in (*part.parameters(), *part.buffers())} == {"meta"}
    assert (model.old.device.type, model.labelled.device.type) == ("meta", "meta")


def test_a_detector_without_a_teacher_moves_too(student: BaseDetector) -> None:
    model = IncrementalDetector(student, LABELLED, OLD[:0]).double()
    assert model.teacher is None
    assert {p.dtype for p in model.parameters()} == {torch.float64}


def test_training_changes_the_student_alone(model: IncrementalDetector, teacher_weights: StateDict) -> None:
    before = {name: value.clone() for name, value in model.student.state_dict().items()}
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
    assert sum(len(group["params"]) for group in wrapper.param_groups) == len(list(model.student.parameters()))
    model.train()
    for _ in range(2):
        losses = model.train_step(raw_batch(TWO, NONE), wrapper)
    assert set(losses) == {*GFL, "n_pos", "loss_dist_cls", "loss_dist_bbox", "n_sel_cls", "n_sel_box"}
    assert not any(value.requires_grad for value in losses.values())
    after = model.student.state_dict()
    assert not all(torch.equal(after[name], value) for name, value in before.items())
    assert all(torch.equal(value, teacher_weights[name]) for name, value in model.teacher.state_dict().items())


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("batch", [(TWO,), (NONE,), (TWO, NONE), (NONE, TWO, TWO)], ids=len)
def test_any_batch_is_finite(student: BaseDetector, teacher: BaseDetector, preset: str, batch: tuple[Any, ...]) -> None:
    shaken(student)
    model = IncrementalDetector(student, LABELLED, OLD, "labelled", teacher, ERD(PRESETS[preset]))
    losses = losses_of(model.train(), *batch)
    assert all(torch.isfinite(value) for value in losses.values())
    assert losses["n_sel_cls"] > 0
    sum(value for name, value in losses.items() if name.startswith("loss")).backward()
    gradients = [p.grad for p in student.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)  # all: DDP waits for every parameter


def test_a_student_like_its_teacher_is_not_distilled(model: IncrementalDetector) -> None:
    losses = losses_of(model.eval(), TWO, NONE)
    assert losses["n_sel_cls"] > 0
    assert losses["n_sel_box"] > 0
    distillation = losses["loss_dist_cls"] + losses["loss_dist_bbox"]
    assert distillation.item() == pytest.approx(0, abs=1e-6)
    gradients = torch.autograd.grad(distillation, list(model.student.parameters()), allow_unused=True)
    assert max(g.abs().max().item() for g in gradients if g is not None) < 1e-4


def test_old_rows_learn_from_the_class_term_alone(model: IncrementalDetector) -> None:
    shaken(model.student)
    losses = losses_of(model.train(), TWO, NONE)
    for name in (*GFL, "loss_dist_bbox"):
        assert all((gradient == 0).all() for gradient in old_rows(model, losses[name])), name
    assert all((gradient != 0).any() for gradient in old_rows(model, losses["loss_dist_cls"]))


def test_new_slice_leaves_old_rows_exactly_as_they_are(student: BaseDetector) -> None:
    model = IncrementalDetector(student, LABELLED, OLD, "labelled")
    loss = sum(losses_of(model.train(), TWO, NONE)[name] for name in GFL)
    assert all((gradient == 0).all() for gradient in old_rows(model, loss))


SILENT = {
    "erd": ERD(ERDParams(lambda_cls=0.0, lambda_box=0.0)),
    "ld": LD(LDParams(w_ld=0.0, w_vlr=0.0, w_kd=0.0)),
    "lwf": LwF(LwFParams(w_out=0.0)),
    "sid": SID(SIDParams(w_cls=0.0, w_feat=0.0)),
}


@pytest.mark.parametrize("method", SILENT)
def test_without_weight_a_method_is_fine_tuning_to_the_bit(
    student: BaseDetector, teacher: BaseDetector, method: str
) -> None:
    plain = IncrementalDetector(copy.deepcopy(student), LABELLED, OLD, "labelled")
    silent = IncrementalDetector(student, LABELLED, OLD, "labelled", teacher, SILENT[method])
    for model in (plain, silent):
        wrapper = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=0.01))
        for _ in range(2):
            model.train().train_step(raw_batch(TWO, NONE), wrapper)
    after = silent.student.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in plain.student.state_dict().items())


@pytest.mark.parametrize("distiller", [ERD(ERDParams()), LD(LDParams()), LwF(LwFParams()), SID(SIDParams())])
def test_without_old_classes_there_is_nothing_to_distil(student: BaseDetector, distiller: Distiller) -> None:
    model = IncrementalDetector(student, LABELLED, OLD[:0], "labelled", tiny(1), distiller)
    assert set(losses_of(model, TWO, NONE)) == {*GFL, "n_pos"}


def replayed(step: int, *objects: Any) -> Any:
    found = sample(*objects)
    found.set_metainfo({"step": step})
    return found


OF_OLD = replayed(0, [(3.0, 5.0, 30.0, 33.0)], [2])


def test_each_image_trains_the_classes_whose_boxes_it_carries(student: BaseDetector) -> None:
    model = IncrementalDetector(student, LABELLED, OLD, "labelled")
    assert model.trained([TWO, OF_OLD]).tolist() == LABELLED.flip(0).tolist()
    losses = losses_of(model.train(), OF_OLD)
    of_old, _ = old_rows(model, losses["loss_cls"])
    assert (of_old != 0).any()
    gradient = torch.autograd.grad(losses["loss_cls"], student.bbox_head.gfl_cls.weight)[0]
    assert (gradient[NEW] == 0).all()


def test_pseudo_labels_complete_an_image_and_then_old_classes_train(
    student: BaseDetector, teacher: BaseDetector
) -> None:
    pseudo_labels = PseudoLabels(PseudoLabelParams(score_thr=0.2), OLD, 0.6)
    model = IncrementalDetector(student, LABELLED, OLD, "labelled", teacher, pseudo_labels=pseudo_labels)
    assert model.trained([TWO, OF_OLD]).tolist() == [[True] * NUM_CLASSES, LABELLED[0].tolist()]
    found, plain = losses_of(model.train(), TWO), losses_of(IncrementalDetector(student, LABELLED, OLD), TWO)
    assert found["n_pseudo"] > 0
    assert found["n_pos"] > plain["n_pos"]
    never = PseudoLabels(PseudoLabelParams(score_thr=1.1), OLD, 0.6)
    silent = IncrementalDetector(student, LABELLED, OLD, "full", teacher, pseudo_labels=never)
    assert all(losses_of(silent, TWO)[name] == plain[name] for name in GFL)


def test_full_scope_pushes_old_classes_down(student: BaseDetector) -> None:
    model = IncrementalDetector(student, LABELLED, OLD)
    _, of_bias = old_rows(model, losses_of(model.train(), TWO, NONE)["loss_cls"])
    assert (of_bias > 0).all()


def test_full_scope_of_a_base_step_is_mmdets_own_training(student: BaseDetector) -> None:
    model = IncrementalDetector(student, LABELLED, OLD[:0]).eval()
    losses = losses_of(model, TWO, NONE)
    for name, levels in student.loss(images(2), [TWO, NONE]).items():
        assert losses[name].item() == pytest.approx(sum(level.item() for level in levels), rel=1e-5)


def test_a_label_that_the_step_does_not_train_is_refused(model: IncrementalDetector) -> None:
    with pytest.raises(ValueError, match=r"labels \[2\] are outside the channels that their images train"):
        losses_of(model, sample([(3.0, 5.0, 30.0, 33.0)], [2]))


def test_predictions_need_no_teacher(model: IncrementalDetector, student: BaseDetector) -> None:
    with torch.no_grad():
        (found,) = model.eval()(images(1), [sample([], [])], mode="tensor")[:1]
    alone = student.eval()(images(1), None, mode="tensor")[0]
    assert all(torch.equal(one, other) for one, other in zip(found, alone, strict=True))


def test_options_reach_the_ground_truth_losses(student: BaseDetector) -> None:
    model = IncrementalDetector(student, LABELLED, OLD, "labelled", gt_options={"normaliser": "plain"})
    assert losses_of(model, NONE)["loss_bbox"].isnan()
    assert not losses_of(model, TWO)["loss_bbox"].isnan()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_named_and_nothing_is_learnt(student: BaseDetector, value: float) -> None:
    def broken(student: Any, teacher: Any, old: Tensor, samples: Any) -> dict[str, Tensor]:
        return {"loss_dist_cls": student.cls_logits.sum() * value, "loss_dist_bbox": student.box_logits.sum() * 0}

    distiller: Distiller = broken
    model = IncrementalDetector(student, LABELLED, OLD, "labelled", frozen(copy.deepcopy(student)), distiller)
    before = {name: parameter.clone() for name, parameter in student.named_parameters()}
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
    with pytest.raises(TrainingError, match=r"losses: must be finite, but loss_dist_cls is (nan|-?inf)$"):
        model.train_step(raw_batch(TWO), wrapper)
    assert all(torch.equal(parameter, before[name]) for name, parameter in student.named_parameters())


def test_weights_are_not_drawn_anew(model: IncrementalDetector) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.init_weights()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.gpu
def test_a_step_on_the_gpu_in_mixed_precision(model: IncrementalDetector) -> None:
    shaken(model.student)
    expected = losses_of(model.eval(), TWO, NONE)
    model.cuda()
    assert {p.device.type for p in model.teacher.parameters()} == {"cuda"}
    inputs = images(2).cuda()
    batch = [copy.deepcopy(image).to("cuda") for image in (TWO, NONE)]
    found = model(inputs, batch, mode="loss")
    for name in (*GFL, "loss_dist_cls"):
        assert found[name].item() == pytest.approx(expected[name].item(), rel=1e-2)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        mixed = model(inputs, batch, mode="loss")
    assert all(torch.isfinite(value) for value in mixed.values())
