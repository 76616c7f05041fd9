"""What is known of tables before any is built: their sizes, and why one is not kept. Without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import pytest

from search_spaces.erd import PRESETS
from tests.trainables.trials import trial_config
from trainables.catalog import METHODS
from trainables.config import Runtime, TrialConfig
from trainables.datasets.splits import Split, Splits
from trainables.recipes import GFL_1X
from trainables.scenarios import custom_scenario
from trainables.table_plans import image_plan, response_floor, response_plan, target_plan

NAMES = ("cat", "dog", "bird")
ERD = asdict(PRESETS["fixed"])
WIDTH = 32  # of its towers and of its FPN
LOGITS = 2 + 4 * 9  # of a teacher of two classes
NUM_LOCATIONS = 16**2 + 8**2 + 4**2  # of the tiny detector, on 128 x 128 px


def splits_of(folder: Path, sizes: list[tuple[int, int]]) -> Splits:
    """Images of (height, width) px that are not there, each with one object of each class."""
    images = [
        {"id": number, "file_name": f"{number}.png", "height": height, "width": width}
        for number, (height, width) in enumerate(sizes)
    ]
    annotations = [
        {"id": len(NAMES) * image["id"] + label, "image_id": image["id"], "category_id": label, "iscrowd": 0,
         "bbox": [1.0, 1.0, 20.0, 20.0], "area": 400.0}
        for image in images
        for label in range(len(NAMES))
    ]  # fmt: skip
    categories = [{"id": label, "name": name} for label, name in enumerate(NAMES)]
    file = folder / "annotations.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    split = Split(file, folder)
    return Splits(split, split, split, NAMES)


def config_of(splits: Splits, **changes: Any) -> TrialConfig:
    known = {"scenario": custom_scenario([["cat", "dog"], ["bird"]]), "batch_size": 2}
    return trial_config(splits.train.digest, **(known | changes))


@pytest.fixture
def even(tmp_path: Path) -> Splits:
    """Fifty images of one size."""
    return splits_of(tmp_path, [(128, 128)] * 50)


def runtime_of(splits: Splits, **more: Any) -> Runtime:
    return Runtime(splits=splits, store=splits.train.images / "store", **more)


def test_images_of_one_size_are_kept_with_all_that_is_said_of_them(even: Splits) -> None:
    config, runtime = config_of(even), runtime_of(even)
    images = image_plan(even.train, config.recipe, runtime)
    plans = [images, target_plan(config, runtime, 1), response_plan(config, runtime, 1)]
    assert [(plan.kept, plan.reason) for plan in plans] == [(True, None)] * 3
    assert images.num_bytes == 50 * 3 * 128 * 128
    assert 0 < plans[1].num_bytes < images.num_bytes / 10


def test_without_a_budget_nothing_is_kept(even: Splits) -> None:
    config, runtime = config_of(even), runtime_of(even, table_budget_gb=0)
    plans = [image_plan(even.train, config.recipe, runtime)]
    plans += [plan(config, runtime, 1) for plan in (target_plan, response_plan)]
    assert [(plan.kept, plan.reason) for plan in plans] == [(False, "tables.budget_gb is 0")] * 3
    assert all(plan.num_bytes > 0 for plan in plans)


def test_what_is_over_the_budget_is_not_kept_and_what_is_under_it_is(even: Splits) -> None:
    config, runtime = config_of(even, params=ERD | {"select": "all"}), runtime_of(even, table_budget_gb=0.002)
    images = image_plan(even.train, config.recipe, runtime)
    assert (images.kept, images.reason) == (False, "about 0.0025 GB are more than tables.budget_gb, 0.002")
    assert target_plan(config, runtime, 1).kept
    assert not response_plan(config, runtime, 1).kept
    exactly = replace(runtime, table_budget_gb=images.num_bytes / 1e9)
    assert image_plan(even.train, config.recipe, exactly).kept


def test_what_is_said_of_images_of_many_sizes_depends_on_the_batch(tmp_path: Path) -> None:
    splits = splits_of(tmp_path, [(128, 128), (128, 96), (96, 128), (128, 96)])
    config, runtime = config_of(splits), runtime_of(splits)
    reason = "the images have 3 sizes, so what is said of one depends on the batch that pads it"
    assert image_plan(splits.train, config.recipe, runtime).kept
    assert target_plan(config, runtime, 1).reason == reason
    responses = response_plan(config, runtime, 1)
    assert responses.reason == reason
    assert responses.num_bytes > 0


def test_sizes_are_those_after_the_resize(tmp_path: Path) -> None:
    splits = splits_of(tmp_path, [(480, 640), (240, 320), (960, 1280)])
    config = config_of(splits, detector="gfl_r18")
    assert target_plan(config, runtime_of(splits), 1).kept
    assert image_plan(splits.train, GFL_1X, runtime_of(splits)).num_bytes == 3 * 3 * 800 * 1067
    assert not target_plan(config_of(splits), runtime_of(splits), 1).kept


def test_of_a_set_like_coco_sizes_and_reasons_are_told(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0)
    sizes = [(480, 640), (640, 480), (427, 640), (640, 427), (375, 500), (612, 612), (333, 500)]
    splits = splits_of(tmp_path, [sizes[place] for place in drawn.integers(0, len(sizes), 5000)])
    config = config_of(splits, detector="gfl_r50")
    images = image_plan(splits.train, config.recipe, runtime_of(splits))
    assert 1.0e10 < images.num_bytes < 1.5e10
    assert images.reason == f"about {images.num_bytes / 1e9:.2g} GB are more than tables.budget_gb, 8"
    responses = response_plan(config, runtime_of(splits), 1)
    assert responses.reason
    assert responses.reason.startswith("the images have 6 sizes")  # two of the seven become one
    locations = sum((800 // stride) * (1066 // stride) for stride in (8, 16, 32, 64, 128))
    everything = 5000 * 2 * locations * 4 * (2 + 4 * 17)
    assert 0.02 < responses.num_bytes / everything < 0.08  # above two deviations lie 2.3 % of each of two kinds
    half = replace(config, response_dtype="float16")
    assert response_plan(half, runtime_of(splits), 1).num_bytes < 0.6 * responses.num_bytes


@pytest.mark.parametrize(
    ("looser", "tighter"),
    [({"alpha_cls": 0.5}, {"alpha_cls": 3.0}), ({"select": "all"}, {}), ({"alpha_box": 1.0}, {"alpha_box": 1.5})],
)
def test_looser_thresholds_are_larger_tables(even: Splits, looser: dict[str, Any], tighter: dict[str, Any]) -> None:
    large, small = (
        response_plan(config_of(even, params=ERD | own), runtime_of(even), 1).num_bytes for own in (looser, tighter)
    )
    assert large > 1.3 * small


@pytest.mark.parametrize(
    ("method", "changes", "channels"),
    [("lwf", {}, 0), ("sid", {}, 2), ("sid", {"feat": "both"}, 3), ("ld", {}, 0), ("ld", {"imitation": "gibox"}, 1)],
)
def test_a_method_that_listens_everywhere_needs_all_that_is_said(
    even: Splits, method: str, changes: dict[str, Any], channels: int
) -> None:
    def size(name: str, **values: Any) -> int:
        params = asdict(METHODS[name].params(**values))
        plan = response_plan(config_of(even, method=name, params=params), runtime_of(even), 1)
        assert plan.kept
        return plan.num_bytes

    logits = size("lwf")
    assert logits == 50 * NUM_LOCATIONS * 4 * LOGITS
    assert size(method, **changes) == logits / LOGITS * (LOGITS + channels * WIDTH)


def test_pseudo_labels_listen_everywhere(even: Splits) -> None:
    def plan(method: str) -> int:
        found = response_plan(config_of(even, method=method), runtime_of(even), 1)
        assert found.kept
        return found.num_bytes

    assert plan("pseudo_label") == plan("pseudo_label-erd") == plan("lwf")


@pytest.mark.parametrize("method", ["replay-sid", "replay-pseudo_label"])
def test_beside_replay_the_teacher_is_asked_live(even: Splits, method: str) -> None:
    config = config_of(even, method=method)
    assert "each trial asks about images of its own" in str(response_plan(config, runtime_of(even), 1).reason)
    assert "targets of its own" in str(target_plan(config, runtime_of(even), 1).reason)
    assert target_plan(config, runtime_of(even), 0).kept


def test_the_floor_of_a_sweep_serves_the_trials_that_it_covers(even: Splits) -> None:
    own = {"alpha_cls": 2.0, "alpha_box": 2.0, "select": "elastic", "stat_scope": "all_levels"}
    own |= {"box_response": "max_logit"}
    sweeps = own | {"alpha_cls": 0.5}
    assert response_floor(config_of(even), runtime_of(even)) == own
    assert response_floor(config_of(even), runtime_of(even, floors={"erd": sweeps})) == sweeps
    looser, other = ERD | {"alpha_box": 1.0}, ERD | {"box_response": "max_prob"}
    assert response_floor(config_of(even, params=looser), runtime_of(even, floors={"erd": sweeps})) == own | {
        "alpha_box": 1.0
    }
    assert response_floor(config_of(even, params=other), runtime_of(even, floors={"erd": sweeps})) == own | {
        "box_response": "max_prob"
    }


def test_a_search_that_varies_how_responses_are_chosen_hears_a_live_teacher(even: Splits) -> None:
    plan = response_plan(config_of(even), runtime_of(even, floors={"erd": {}}), 1)
    assert (plan.kept, plan.reason) == (
        False,
        "the search varies a parameter of which every value needs other responses",
    )


@pytest.mark.parametrize("scale", [None, (1333, 800), (800, 1333), (90, 70), (128, 128)])
def test_a_size_after_the_resize_is_mmcvs(scale: tuple[int, int] | None) -> None:
    drawn = np.random.default_rng(0)
    for height, width in drawn.integers(20, 2000, (300, 2)).tolist():
        expected = mmcv.rescale_size((width, height), scale or 1.0)
        assert replace(GFL_1X, scale=scale).resized(height, width) == expected[::-1]


def test_out_of_ratio_all_images_have_one_size() -> None:
    assert replace(GFL_1X, scale=(320, 240), keep_ratio=False).resized(500, 375) == (240, 320)


def test_a_plan_loads_no_torch(even: Splits) -> None:
    code = f"""
import json, sys
from pathlib import Path
from tests.trainables.trials import trial_config
from trainables.config import Runtime
from trainables.datasets.splits import Split, Splits
from trainables.scenarios import custom_scenario
from trainables.table_plans import image_plan, response_plan, target_plan
split = Split(Path({str(even.train.annotations)!r}), Path("."))
config = trial_config(scenario=custom_scenario([["cat", "dog"], ["bird"]]))
runtime = Runtime(splits=Splits(split, split, split, ()), store=Path("store"))
assert image_plan(split, config.recipe, runtime).kept
assert target_plan(config, runtime, 1).kept
assert response_plan(config, runtime, 1).kept
print(json.dumps(sorted(set(sys.modules) & {{"torch", "mmcv", "mmdet", "mmengine", "ray"}})))
"""
    root = Path(__file__).parents[2]
    loaded = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    assert json.loads(loaded) == []
