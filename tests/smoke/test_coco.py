"""The COCO-sized recipe on a few images in COCO's own layout: resize, flip, SGD, steps, a pretrained backbone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.trainables.trials import trial_config
from trainables.config import Runtime
from trainables.datasets import DataConfig, prepare
from trainables.detectors.growth import build_detector
from trainables.environment import prepare_process
from trainables.recipes import GFL_1X
from trainables.scenarios import custom_scenario
from trainables.trial import run_trial

pytestmark = pytest.mark.smoke

CATEGORIES = [{"id": 44, "name": "bottle"}, {"id": 1, "name": "person"}, {"id": 17, "name": "cat"}]


def write_coco(root: Path) -> None:
    """Official layout: annotations/instances_{train,val}2017.json and the images beside."""
    rng = np.random.default_rng(0)
    for part, count in (("train2017", 3), ("val2017", 1)):
        images, annotations = [], []
        for number in range(1, count + 1):
            height, width = ((48, 64), (64, 48))[number % 2]
            image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            (root / part).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / part / f"{number:012}.jpg"), image)
            images.append({"id": number, "file_name": f"{number:012}.jpg", "height": height, "width": width})
            annotations += [
                {"id": 10 * number + place, "image_id": number, "category_id": category["id"], "iscrowd": 0,
                 "bbox": [4.0 + 10 * place, 5.0, 20.0, 24.0], "area": 480.0}
                for place, category in enumerate(CATEGORIES)
            ]  # fmt: skip
        file = root / "annotations" / f"instances_{part}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES}))


def test_two_steps_of_gfl_r18_with_a_pretrained_backbone(tmp_path: Path) -> None:
    prepare_process(threads=1)
    write_coco(tmp_path / "coco")
    torch.manual_seed(7)
    backbone = build_detector("gfl_r18", 1, GFL_1X).backbone.state_dict()
    torch.save(
        backbone | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, tmp_path / "resnet18.pth"
    )
    splits = prepare(DataConfig(kind="coco", root=str(tmp_path / "coco"), num_tune=1), tmp_path / "data")
    config = trial_config(
        splits.train.digest,
        detector="gfl_r18",
        scenario=custom_scenario([["person", "bottle"], ["cat"]]),
        batch_size=2,
        pretrained=str(tmp_path / "resnet18.pth"),
    )
    events: list[dict[str, Any]] = []
    results = run_trial(config, Runtime(splits=splits, store=tmp_path / "store"), events.append)
    assert [row["class"] for row in events[-1]["classes"]] == ["person", "bottle", "cat"]
    assert events[-1]["facts"]["lr_effective"] == pytest.approx(0.01 * 2 / 16)
    weights = torch.load(results[0].weights, weights_only=True)
    torch.testing.assert_close(weights["backbone.conv1.weight"], backbone["conv1.weight"])  # frozen, as pretrained
