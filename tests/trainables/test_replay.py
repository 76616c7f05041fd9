"""What a buffer keeps, and how it is mixed into batches."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from mmdet.structures import DetDataSample
from torch.utils.data import Dataset

from trainables.datasets.replay import Kept, ReplayBatches, ReplayDataset, buffer_at

CLASSES = ("a", "b", "c", "d", "e")
STEPS = (("a", "b"), ("c",), ("d",), ("e",))
POLICIES = ("half", "per_task", "reservoir", "class_balanced")


def coco() -> dict[str, Any]:
    """300 images; most of them show `a`, few of them `b`; 80 show `c`."""
    shown = ["a"] * 160 + ["b"] * 20 + ["c"] * 80 + ["d"] * 30 + ["e"] * 10
    categories = [{"id": 10 * (k + 1), "name": name} for k, name in enumerate(CLASSES)]
    ids = {one["name"]: one["id"] for one in categories}
    box = {"bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0}
    return {
        "images": [{"id": k, "file_name": f"{k}.png", "height": 32, "width": 32} for k in range(300)],
        "annotations": [{"id": k, "image_id": k, "category_id": ids[name], **box} for k, name in enumerate(shown)],
        "categories": categories,
    }


def by_step(buffer: list[Kept]) -> Counter[int]:
    return Counter(one.step for one in buffer)


@pytest.mark.parametrize("policy", POLICIES)
def test_after_the_first_step_it_is_a_sample_of_that_step(policy: str) -> None:
    buffer = buffer_at(coco(), STEPS, 1, 50, policy, 0)
    assert len(set(buffer)) == 50
    assert by_step(buffer) == {0: 50}
    assert {one.image_id for one in buffer} < set(range(180))
    assert len(buffer_at(coco(), STEPS, 1, 1000, policy, 0)) == 180


@pytest.mark.parametrize("policy", POLICIES)
def test_a_buffer_is_a_function_of_its_seed(policy: str) -> None:
    first, again, other = (buffer_at(coco(), STEPS, 3, 40, policy, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert len(set(first)) == 40


@pytest.mark.parametrize("policy", POLICIES)
def test_a_buffer_of_size_zero_is_empty(policy: str) -> None:
    assert buffer_at(coco(), STEPS, 2, 0, policy, 0) == []


def test_half_gives_the_newest_step_half() -> None:
    assert by_step(buffer_at(coco(), STEPS, 2, 100, "half", 0)) == {0: 50, 1: 50}
    assert by_step(buffer_at(coco(), STEPS, 3, 100, "half", 0))[2] == 30  # all that it has


def test_per_task_gives_equal_shares_and_the_remainder_to_the_newest() -> None:
    assert by_step(buffer_at(coco(), STEPS, 3, 50, "per_task", 0)) == {0: 16, 1: 16, 2: 18}


def test_a_reservoir_holds_each_image_seen_with_the_same_chance() -> None:
    counts = sum((by_step(buffer_at(coco(), STEPS, 2, 52, "reservoir", seed)) for seed in range(40)), Counter())
    assert counts[0] / counts[1] == pytest.approx(180 / 80, rel=0.15)


def test_class_balanced_evens_out_the_boxes() -> None:
    buffer = buffer_at(coco(), STEPS, 2, 45, "class_balanced", 0)
    shown = Counter("a" if one.image_id < 160 else "b" if one.image_id < 180 else "c" for one in buffer)
    assert shown == {"a": 15, "b": 15, "c": 15}


class Numbers(Dataset[dict[str, Any]]):
    """Items that say where they are from; each is there once, as in a table."""

    def __init__(self, name: str, count: int) -> None:
        self.samples = [DetDataSample(metainfo={"name": name, "row": row}) for row in range(count)]
        self.metainfo: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        return {"data_samples": self.samples[idx]}


def epoch(own: int, kept: int, batch_size: int, ratio: float, number: int = 0) -> list[list[DetDataSample]]:
    data: Any = ReplayDataset(Numbers("own", own), 2, {0: Numbers("old", kept)})  # type: ignore[arg-type, dict-item]
    batches = ReplayBatches(data, batch_size, ratio, seed=0)
    batches.sampler.set_epoch(number)
    found = [[data[row]["data_samples"] for row in batch] for batch in batches]
    assert len(found) == len(batches)
    return found


def test_a_batch_holds_its_share_of_replayed_images_each_with_its_step() -> None:
    for batch in epoch(own=80, kept=1000, batch_size=16, ratio=0.3):
        assert Counter((one.name, one.step) for one in batch) == {("own", 2): 12, ("old", 0): 4}


def test_whose_step_it_is_stays_with_the_batch() -> None:
    own = Numbers("own", 3)
    first, second = (ReplayDataset(own, step, {})[0]["data_samples"] for step in (1, 2))  # type: ignore[arg-type]
    assert (first.step, second.step) == (1, 2)
    assert "step" not in own.samples[0]


def test_an_epoch_is_one_pass_over_the_steps_own_images() -> None:
    batches = epoch(own=82, kept=7, batch_size=16, ratio=0.5)
    own = [one.row for batch in batches for one in batch if one.name == "own"]
    assert len(batches) == 10
    assert len(set(own)) == len(own) == 80


def test_the_buffer_is_gone_through_before_it_repeats() -> None:
    batches = epoch(own=80, kept=20, batch_size=16, ratio=0.5)
    old = [one.row for batch in batches for one in batch if one.name == "old"]
    assert set(Counter(old).values()) == {4}
    small = epoch(own=80, kept=3, batch_size=16, ratio=0.5)
    assert {one.row for batch in small for one in batch if one.name == "old"} == {0, 1, 2}


def test_epochs_differ_and_repeat_themselves() -> None:
    def rows(number: int) -> list[int]:
        return [one.row for batch in epoch(80, 40, 16, 0.5, number) for one in batch]

    assert rows(1) == rows(1) != rows(2)


def test_a_step_smaller_than_a_batch_trains() -> None:
    ((*batch,),) = epoch(own=3, kept=50, batch_size=16, ratio=0.5)
    assert Counter(one.name for one in batch) == {"own": 3, "old": 8}
