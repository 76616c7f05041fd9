"""A detector on its way to the edge: what ONNX holds, says, and needs."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest
import torch
from click.testing import CliRunner

from search_spaces.distributions import Scalar
from sweeps.cli import main
from tests.trainables.batches import tiny
from tests.trainables.trials import trial_config
from trainables.catalog import DETECTORS
from trainables.config import Runtime
from trainables.datasets import DataConfig, Splits, prepare
from trainables.detectors.growth import set_nms
from trainables.detectors.voting_nms import TYPE as VOTING
from trainables.edge import OnnxDetector, footprint, write_int8, write_onnx
from trainables.edge_score import EdgeExport
from trainables.environment import prepare_process
from trainables.export import export_student, load_exported
from trainables.step import run_step
from trainables.timing import untrained

pytestmark = pytest.mark.smoke
CLASSES = tuple(map(str, range(5)))


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    return prepare(DataConfig(kind="digits", sizes=(16, 8, 8)), tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported detector that finds something."""
    detector = tiny(5, detector="nanodet_tiny").train()
    images = torch.randn(4, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    for _ in range(30):  # statistics of batch norm
        detector(images, mode="tensor")
    weights = detector.state_dict()
    for level in range(4):
        weights[f"bbox_head.gfl_cls.{level}.weight"][:5] *= 400
    path = tmp_path_factory.mktemp("checkpoint") / "nanodet_tiny.pth"
    torch.save({"state_dict": weights, "meta": {"detector": "nanodet_tiny", "classes": CLASSES}}, path)
    return path


@pytest.mark.parametrize("nms", [{}, {"type": VOTING, "iou_threshold": 0.5}], ids=["plain", "voting"])
def test_onnx_detects_what_the_detector_does(
    nms: dict[str, Scalar], splits: Splits, checkpoint: Path, tmp_path: Path
) -> None:
    detector = load_exported(checkpoint)
    set_nms(detector, nms)
    edge = EdgeExport(detector, DETECTORS["nanodet_tiny"].recipe, splits.train, splits.test)
    path = tmp_path / "whole.onnx"
    edge.write(path)
    found, expected = edge.detected(path), edge.detected()
    assert len(expected) > 50
    assert [(one["image_id"], one["category_id"]) for one in found] == [
        (one["image_id"], one["category_id"]) for one in expected
    ]
    for one, other in zip(found, expected, strict=True):
        assert [one["score"], *one["bbox"]] == pytest.approx([other["score"], *other["bbox"]], abs=1e-3)
    told = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert told["classes"] == "0,1,2,3,4"


def test_int8_of_nanodet_plus_m_is_small_and_holds_no_convolution_in_float(tmp_path: Path) -> None:
    whole, small = tmp_path / "whole.onnx", tmp_path / "small.onnx"
    write_onnx(untrained("nanodet_plus_m", 20), (320, 320), {}, whole)
    images = torch.randn(2, 1, 3, 320, 320, generator=torch.Generator().manual_seed(0)).numpy()
    write_int8(whole, images, small)
    before, after = footprint(whole), footprint(small)
    assert after.weights < 1.25e6
    assert after.file < 1.6e6
    assert after.in_float == ()
    assert before.weights == 4 * after.weights
    assert before.activations / 4 < after.activations < before.activations  # not all is int8 between convolutions
    scores, boxes = OnnxDetector(small)(images[0])
    assert (scores.shape, boxes.shape) == ((1, 2125, 20), (1, 2125, 4))
    name = before.in_float[0]
    write_int8(whole, images, small, without=[name])
    assert footprint(small).in_float == (name,)


@pytest.mark.long
def test_int8_loses_little_of_what_a_trained_detector_finds(tmp_path: Path) -> None:
    splits = prepare(DataConfig(kind="digits"), tmp_path / "data")
    config = trial_config(splits.train.digest, "finetune", "nanodet_tiny", base_epochs=4, batch_size=16)
    prepare_process(threads=1)
    trained = run_step(config, Runtime(splits=splits, store=tmp_path / "store"), 0, None).weights
    exported, _ = export_student(trained, tmp_path / "exported")
    edge = EdgeExport(load_exported(exported), config.recipe, splits.train, splits.test)
    whole, small = tmp_path / "whole.onnx", tmp_path / "small.onnx"
    edge.write(whole)
    edge.write_int8(whole, small)
    before, after = edge.as_trained().ap, edge.scored(small).ap
    assert before > 0.2  # COCO's AP over all ten digits, of which it knows five
    assert before - after < 0.02


def test_the_command_says_what_became_of_the_detector(checkpoint: Path, tmp_path: Path) -> None:
    spec = tmp_path / "sweep.yaml"
    spec.write_text(
        "name: edge\nscenario: digits/5+5\ndetector: nanodet_tiny\nmethod: latent\nsearch: {w_cls: declared}\n"
        f"data: {{sizes: [16, 8, 8]}}\nstorage: {tmp_path / 'runs'}\n"
    )
    arguments = ["export", str(checkpoint), str(tmp_path / "out"), "--format", "onnx-int8", "--data", str(spec)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    (written,) = (tmp_path / "out").iterdir()
    assert re.fullmatch(r"nanodet_tiny-[0-9a-f]{8}-int8\.onnx", written.name)
    assert all(word in result.output for word in ("as trained", "ONNX, int8", "backbone", "79,056"))
    refused = CliRunner().invoke(main, arguments[:5])
    assert (refused.exit_code, "--format onnx-int8 needs --data" in refused.output) == (2, True)
