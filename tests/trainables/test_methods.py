"""What every method of the catalogue keeps to as a whole, its teacher, replay and pseudo-labels together."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.optim import OptimWrapper

from tests.trainables.batches import SIDE, sample, tiny
from tests.trainables.trials import trial_config
from trainables.catalog import DETECTORS, HEADS, METHODS, misfit
from trainables.config import Runtime, TrialConfig
from trainables.datasets import DataConfig, Splits, prepare
from trainables.detectors.nanodet import NanoDetPlusHead
from trainables.incremental import IncrementalDetector
from trainables.step_tables import StepTables
from trainables.training import build_model

TWO = sample([(3.0, 5.0, 30.0, 33.0), (20.0, 28.0, 61.0, 60.0)], [5, 7])
NONE = sample([], [])
BATCHES = {"one": (TWO,), "no ground truth": (NONE,), "mixed": (TWO, NONE, TWO)}
ON_GFL = [(name, "gfl_r18_tiny") for name in METHODS if not misfit(name, "gfl_r18_tiny")]
ON_YOLOY = [(name, "yoloy_tiny") for name in METHODS if "-" not in name and not misfit(name, "yoloy_tiny")]
ON_NANODET = [(name, "nanodet_tiny") for name in METHODS if "-" not in name and not misfit(name, "nanodet_tiny")]
OTHERS = [("replay-ilyolox", "yoloy_tiny"), ("replay-pseudo_label-sid", "yoloy_tiny")]
PAIRS = [*ON_GFL, *ON_YOLOY, *ON_NANODET, *OTHERS]
WEIGHTS = {"lambda_cls", "lambda_box", "w_ld", "w_vlr", "w_kd", "w_kd_vlr", "w_out", "w_cls", "w_feat"}


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    return prepare(DataConfig(kind="digits", sizes=(16, 8, 8)), tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of each detector the weights of a base step that responds, so that there is something to keep."""
    folder = tmp_path_factory.mktemp("base")
    paths = {detector: folder / f"{detector}.pt" for detector in ("gfl_r18_tiny", "yoloy_tiny", "nanodet_tiny")}
    for detector, path in paths.items():
        weights = tiny(5, detector=detector).state_dict()
        for prefix in HEADS[DETECTORS[detector].head].classifiers:
            weights[f"{prefix}.weight"] = weights[f"{prefix}.weight"] * 20
            weights[f"{prefix}.bias"] = weights[f"{prefix}.bias"] + 4
        for name in (name for name in weights if "conv_obj" in name and name.endswith("bias")):
            weights[name] = weights[name] + 8
        torch.save(weights, path)
    return paths


def config_of(splits: Splits, method: str, detector: str = "gfl_r18_tiny", **changes: Any) -> TrialConfig:
    config = trial_config(splits.train.digest, method, detector, batch_size=4)
    low = {name: 0.2 for name in ("score_thr", "thr_center", "thr_other") if name in config.params}
    return replace(config, params=config.params | low | changes)


def model_of(config: TrialConfig, splits: Splits, bases: Mapping[str, Path], store: Path) -> IncrementalDetector:
    """The model of the first increment, with a live teacher."""
    with StepTables(config, Runtime(splits=splits, store=store, table_budget_gb=0.0), 1) as tables:
        return build_model(config, 1, bases[config.detector], tables).train()


@pytest.fixture(params=PAIRS, ids="-on-".join)
def model(
    request: pytest.FixtureRequest, splits: Splits, bases: Mapping[str, Path], tmp_path: Path
) -> IncrementalDetector:
    return model_of(config_of(splits, *request.param), splits, bases, tmp_path)


def batch_of(*samples: Any, side: int = SIDE) -> dict[str, Any]:
    drawn = torch.Generator().manual_seed(3)
    pixels = [torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=drawn) for _ in samples]
    return {"inputs": pixels, "data_samples": list(copy.deepcopy(samples))}


def losses_of(model: IncrementalDetector, *samples: Any) -> dict[str, torch.Tensor]:
    # At stride 64 an image of SIDE has one location, and the norm of one value is none.
    side = 2 * SIDE if isinstance(model.student.bbox_head, NanoDetPlusHead) else SIDE
    data = model.data_preprocessor(batch_of(*samples, side=side), True)
    return dict(model(data["inputs"], data["data_samples"], mode="loss"))


def tensors(samples: Any) -> Iterator[torch.Tensor]:
    for one in samples:
        yield from (one.gt_instances.bboxes, one.gt_instances.labels)


@pytest.mark.parametrize("kind", BATCHES)
def test_any_batch_has_finite_named_losses_that_reach_all_of_the_student(model: IncrementalDetector, kind: str) -> None:
    losses = losses_of(model, *BATCHES[kind])
    assert {"loss_cls", "loss_bbox"} <= losses.keys()
    assert losses.get("n_pseudo", 1) > 0
    assert all(value.shape == () and torch.isfinite(value) for value in losses.values())
    sum(value for name, value in losses.items() if name.startswith("loss")).backward()
    gradients = [parameter.grad for parameter in model.student.parameters() if parameter.requires_grad]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)


def test_a_step_of_training_changes_the_student_alone_and_no_input(model: IncrementalDetector) -> None:
    if model.teacher is not None:
        assert not any(parameter.requires_grad for parameter in model.teacher.parameters())
    taught = copy.deepcopy(model.teacher.state_dict()) if model.teacher else {}
    before = copy.deepcopy(model.student.state_dict())
    data = batch_of(TWO, NONE)
    given = copy.deepcopy(data)
    model.train_step(data, OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01)))
    assert all(torch.equal(a, b) for a, b in zip(data["inputs"], given["inputs"], strict=True))
    told = zip(tensors(data["data_samples"]), tensors(given["data_samples"]), strict=True)
    assert all(torch.equal(a, b) for a, b in told)
    assert all(torch.equal(value, model.teacher.state_dict()[name]) for name, value in taught.items())
    after = model.student.state_dict()
    assert not all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize(("method", "detector"), [pair for pair in PAIRS if METHODS[pair[0]].taught])
def test_without_weight_a_method_is_fine_tuning_to_the_bit(
    method: str, detector: str, splits: Splits, bases: Mapping[str, Path], tmp_path: Path
) -> None:
    params = config_of(splits, method, detector).params
    silent: dict[str, Any] = dict.fromkeys(WEIGHTS & params.keys(), 0.0)
    silent |= {"score_thr": 1.1} if "score_thr" in params else {}
    silent |= {"loss_scope": "full"} if "loss_scope" in params else {}
    silent |= {"frozen": "none"} if "frozen" in params else {}
    silent |= {"select": "all_by_one"} if "select" in params and "thr_center" in params else {}
    parts = {"pseudo_label", "teacher_boxes"} & set(METHODS[method].parts)  # with those, all channels have labels
    full = "loss_scope" in params or bool(parts)
    plain = config_of(splits, "finetune", detector, loss_scope="full" if full else "new_slice")
    found = model_of(config_of(splits, method, detector, **silent), splits, bases, tmp_path)
    expected = model_of(plain, splits, bases, tmp_path)
    for one in (found, expected):
        wrapper = OptimWrapper(torch.optim.AdamW(one.parameters(), lr=0.01))
        for _ in range(2):
            one.train_step(batch_of(TWO, NONE), wrapper)
    after = found.student.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in expected.student.state_dict().items())


@pytest.mark.parametrize("detector", ["gfl_r18_tiny", "yoloy_tiny", "nanodet_tiny"])
def test_a_frozen_backbone_stays_and_serves_the_teacher_too(
    detector: str, splits: Splits, bases: Mapping[str, Path], tmp_path: Path
) -> None:
    model = model_of(config_of(splits, "latent", detector), splits, bases, tmp_path)
    before = copy.deepcopy(model.student.state_dict())
    found = losses_of(model, TWO, NONE)
    passes: list[int] = []
    model.student.backbone.register_forward_hook(lambda *_: passes.append(1))
    model.teacher.backbone.register_forward_hook(lambda *_: passes.append(2))
    alone = model_of(config_of(splits, "sid", detector), splits, bases, tmp_path)
    alone.student.backbone.eval()
    apart = losses_of(alone, TWO, NONE)
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {name: value.item() for name, value in apart.items()}, rel=1e-6, abs=1e-7
    )
    model.train_step(batch_of(TWO, NONE), OptimWrapper(torch.optim.AdamW(model.parameters(), lr=0.01)))
    assert passes == [1]
    after = model.student.state_dict()
    moved = {name for name, value in before.items() if not torch.equal(after[name], value)}
    assert moved
    assert not any(name.startswith("backbone.") for name in moved)


def test_the_backbone_of_a_base_step_can_stay(splits: Splits, bases: Mapping[str, Path], tmp_path: Path) -> None:
    config = replace(
        config_of(splits, "latent", "nanodet_tiny"), freeze_base=True, pretrained=str(bases["nanodet_tiny"])
    )
    with StepTables(config, Runtime(splits=splits, store=tmp_path), 0) as tables:
        model = build_model(config, 0, None, tables).train()
    backbone = set(model.student.backbone.parameters())
    assert {parameter.requires_grad for parameter in backbone} == {False}
    assert all(parameter.requires_grad for parameter in set(model.student.parameters()) - backbone)
    assert not any(module.training for module in model.student.backbone.modules())


def test_a_part_of_the_backbone_can_stay(splits: Splits, bases: Mapping[str, Path], tmp_path: Path) -> None:
    config = config_of(splits, "latent", "nanodet_tiny", frozen="but_last_stage")
    model = model_of(config, splits, bases, tmp_path)
    before = copy.deepcopy(model.student.state_dict())
    model.train_step(batch_of(TWO, NONE), OptimWrapper(torch.optim.AdamW(model.parameters(), lr=0.01)))
    after = model.student.state_dict()
    moved = {name for name, value in before.items() if not torch.equal(after[name], value)}
    assert {name.split(".")[1] for name in moved if name.startswith("backbone.")} == {"stage4"}


def test_statistics_of_a_frozen_backbone_can_follow_the_batches(
    splits: Splits, bases: Mapping[str, Path], tmp_path: Path
) -> None:
    model = model_of(config_of(splits, "latent", "nanodet_tiny", backbone_bn="train"), splits, bases, tmp_path)
    before = copy.deepcopy(model.student.state_dict())
    model.train_step(batch_of(TWO, NONE), OptimWrapper(torch.optim.AdamW(model.parameters(), lr=0.01)))
    after = model.student.state_dict()
    moved = {name for name, value in before.items() if not torch.equal(after[name], value)}
    of_backbone = {name.rsplit(".")[-1] for name in moved if name.startswith("backbone.")}
    assert of_backbone == {"running_mean", "running_var", "num_batches_tracked"}
    taught = model.teacher.state_dict()
    assert all(torch.equal(taught[name], value) for name, value in before.items() if name.startswith("backbone."))


def test_a_backbone_that_is_not_the_teachers_is_not_shared(
    splits: Splits, bases: Mapping[str, Path], tmp_path: Path
) -> None:
    model = model_of(config_of(splits, "latent", "nanodet_tiny"), splits, bases, tmp_path)
    other = tiny(5, seed=7, detector="nanodet_tiny")
    with pytest.raises(ValueError, match="must be the teacher's, but conv1"):
        IncrementalDetector(model.student, model.labelled, model.old, teacher=other, frozen="backbone")
