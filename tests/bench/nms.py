"""Voting NMS against plain NMS on the same detections of a trained detector: AP, and milliseconds an image."""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from mmdet.models import BaseDetector
from mmengine.structures import InstanceData
from torch.utils.data import DataLoader

from tests.bench.digits import scenes
from tests.trainables.trials import trial_config
from trainables.config import Runtime
from trainables.datasets import steps
from trainables.datasets.image_table import stacked
from trainables.detectors.growth import build_detector, load_weights, read_weights, set_nms
from trainables.detectors.voting_nms import TYPE
from trainables.environment import prepare_process
from trainables.evaluation import evaluate
from trainables.prediction import coco_rows
from trainables.step import run_step
from trainables.step_data import scored_data

KINDS = {"plain": {"type": "nms"}, "voting": {"type": TYPE}}
AP_KINDS = ("ap", "ap50", "ap75")
Found = tuple[InstanceData, dict[str, Any]]
"""The boxes of an image, and where they are."""


def run(options: list[str]) -> dict[str, float]:
    """AP of both, in COCO points, their milliseconds an image, and `ratio`, voting's time over plain NMS's."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench nms", description=__doc__)
    parser.add_argument("--epochs", type=int, default=10, help="of the detector of all ten digits")
    epochs = parser.parse_args(options).epochs
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        splits = scenes(folder)
        config = trial_config(splits.train.digest, base_epochs=epochs, batch_size=16).joint(1)
        runtime = Runtime(splits=splits, store=folder / "store", evaluate_on="test")
        prepare_process(threads=1)
        print(f"training a detector for {epochs} epochs ...", flush=True)
        detector = build_detector(config.detector, 10, config.recipe).eval()
        load_weights(detector, read_weights(run_step(config, runtime, 0, None).weights), "the detector")
        dataset, truth = scored_data(config, runtime, 0)
        candidates = _candidates(detector, DataLoader(dataset, 16, collate_fn=stacked))
    category_ids = steps.category_ids(truth, config.scenario.class_names)
    found, seconds = _suppressed(detector, candidates)
    result: dict[str, float] = {"candidates": sum(len(boxes) for boxes, _ in candidates) / len(candidates)}
    for kind, images in found.items():
        rows = [row for boxes, meta in images for row in coco_rows(meta["img_id"], boxes, category_ids)]
        per_class = evaluate(truth, rows, category_ids).per_class
        ap = {name: 100 * float(np.nanmean(per_class[name])) for name in AP_KINDS}
        ms = 1000 * seconds[kind] / len(images)
        print(f"{kind}: {', '.join(f'{name} {value:.2f}' for name, value in ap.items())}; {ms:.2f} ms an image")
        result |= {f"{name}_{kind}": value for name, value in ap.items()} | {f"ms_{kind}": ms}
    return result | {"ratio": result["ms_voting"] / result["ms_plain"]}


@torch.no_grad()
def _candidates(detector: BaseDetector, loader: DataLoader) -> list[Found]:
    """What NMS chooses from in each image."""
    found: list[Found] = []
    for batch in loader:
        data = detector.data_preprocessor(batch, False)
        metas = [sample.metainfo for sample in data["data_samples"]]
        outputs = detector.bbox_head(detector.extract_feat(data["inputs"]))
        kept = detector.bbox_head.predict_by_feat(*outputs, batch_img_metas=metas, rescale=False, with_nms=False)
        found += zip(kept, metas, strict=True)
    return found


def _suppressed(detector: BaseDetector, candidates: list[Found]) -> tuple[dict[str, list[Found]], dict[str, float]]:
    """What each kind keeps, and its seconds; image by image, so that whatever else the machine does hits both."""
    heads = {}
    for kind, nms in KINDS.items():
        own = copy.deepcopy(detector)
        set_nms(own, nms)
        heads[kind] = own.bbox_head
    found: dict[str, list[Found]] = {kind: [] for kind in KINDS}
    seconds = dict.fromkeys(KINDS, 0.0)
    for boxes, meta in candidates:
        for kind, head in heads.items():
            given = copy.deepcopy(boxes)
            begin = time.perf_counter()
            kept = head._bbox_post_process(given, head.test_cfg, rescale=False, with_nms=True, img_meta=meta)
            seconds[kind] += time.perf_counter() - begin
            found[kind].append((kept, meta))
    return found, seconds
