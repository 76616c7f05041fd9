"""Replay: which images of earlier steps are kept, and how they are mixed into batches.

Source: repository pastifra/Continual_Nanodet (arXiv 2409.01872). The buffer is a function of annotations, scenario,
seed and policy: nothing of it has to be saved to go on with a step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from trainables.datasets import steps
from trainables.datasets.image_table import StepDataset
from trainables.datasets.steps import Coco
from trainables.ranks import WholeSampler


@dataclass(frozen=True)
class Kept:
    """An image in the buffer, with the labels of `step`."""

    image_id: int
    step: int


def buffer_at(
    coco: Coco, class_names: Sequence[Sequence[str]], step: int, size: int, policy: str, seed: int
) -> list[Kept]:
    """What is kept of the steps before `step`.

    Args:
        coco: the training annotations.
        class_names: of each step.
        size: most images.
        policy: `half`: a step's images take half of it at most, and others leave at random; `per_task`: equal shares,
            the remainder to the newest; `reservoir`: every image seen is as likely to be in it; `class_balanced`:
            always an image of the class with the fewest boxes in it.
    """
    drawn = np.random.default_rng([seed, size])
    kept: list[Kept] = []
    pools: list[list[Kept]] = []
    boxes: dict[Kept, Counter[int]] = {}
    for earlier in range(step):
        data = steps.training_set(coco, class_names[earlier])
        pools.append([Kept(image["id"], earlier) for image in data["images"]])
        boxes |= _boxes(data, earlier)
        kept = _POLICIES[policy](kept, pools, boxes, size, drawn)
    return kept


def _boxes(coco: Coco, step: int) -> dict[Kept, Counter[int]]:
    """How many boxes of each category the images of a step carry."""
    found: dict[Kept, Counter[int]] = {}
    for one in coco["annotations"]:
        found.setdefault(Kept(one["image_id"], step), Counter())[one["category_id"]] += 1
    return found


Pools = Sequence[Sequence[Kept]]
Boxes = Mapping[Kept, Counter[int]]


def _some(of: Sequence[Kept], count: int, drawn: np.random.Generator) -> list[Kept]:
    places = drawn.permutation(len(of))[: max(count, 0)]
    return [of[place] for place in sorted(places.tolist())]


def _half(kept: Sequence[Kept], pools: Pools, boxes: Boxes, size: int, drawn: np.random.Generator) -> list[Kept]:
    new = min(size // 2, len(pools[-1])) if kept else size
    return _some(kept, size - new, drawn) + _some(pools[-1], new, drawn)


def _per_task(kept: Sequence[Kept], pools: Pools, boxes: Boxes, size: int, drawn: np.random.Generator) -> list[Kept]:
    share = size // len(pools)
    older = [_some([one for one in kept if one.step == step], share, drawn) for step in range(len(pools) - 1)]
    return [one for part in older for one in part] + _some(pools[-1], size - share * (len(pools) - 1), drawn)


def _reservoir(kept: Sequence[Kept], pools: Pools, boxes: Boxes, size: int, drawn: np.random.Generator) -> list[Kept]:
    found, seen = list(kept), sum(len(pool) for pool in pools[:-1])
    for one in _some(pools[-1], len(pools[-1]), drawn):
        seen += 1
        if len(found) < size:
            found.append(one)
        elif (place := int(drawn.integers(seen))) < size:
            found[place] = one
    return found


def _class_balanced(
    kept: Sequence[Kept], pools: Pools, boxes: Boxes, size: int, drawn: np.random.Generator
) -> list[Kept]:
    held: Counter[int] = Counter()
    candidates = [part[place] for part in (kept, pools[-1]) for place in drawn.permutation(len(part))]
    of_class: dict[int, list[Kept]] = {}
    for one in candidates:
        for category in boxes[one]:
            of_class.setdefault(category, []).append(one)
    found: dict[Kept, None] = {}
    while of_class and len(found) < size:
        rarest = min(of_class, key=lambda category: (held[category], category))
        while of_class[rarest] and of_class[rarest][0] in found:
            of_class[rarest].pop(0)
        if not of_class[rarest]:
            del of_class[rarest]
            continue
        chosen = of_class[rarest].pop(0)
        found[chosen] = None
        held += boxes[chosen]
    return list(found)


_POLICIES = {"half": _half, "per_task": _per_task, "reservoir": _reservoir, "class_balanced": _class_balanced}


class ReplayDataset(Dataset[dict[str, Any]]):
    """The images of a step, and after them those of the buffer; every sample says its `step`."""

    def __init__(self, current: StepDataset, step: int, buffer: Mapping[int, StepDataset]) -> None:
        """`buffer`: by step, the kept images with the labels of that step."""
        self.current = current
        self._rows = [(current, step, row) for row in range(len(current))]
        self._rows += [(data, earlier, row) for earlier, data in buffer.items() for row in range(len(data))]
        self.metainfo = current.metainfo

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        data, step, row = self._rows[idx]
        item: dict[str, Any] = data[row]
        sample = item["data_samples"].new()  # a table's data set has one for all trials
        sample.set_metainfo({"step": step})
        return item | {"data_samples": sample}


class ReplayBatches:
    """Batches of which a share is replayed. An epoch is one pass over the step's own images.

    The buffer is gone through in ever new orders; one smaller than its share of a batch is drawn from with repetition.
    """

    def __init__(self, dataset: ReplayDataset, batch_size: int, ratio: float, seed: int) -> None:
        self.sampler = WholeSampler(dataset.current, seed)
        self._own, self._kept = len(dataset.current), len(dataset) - len(dataset.current)
        self._replayed = int(batch_size * ratio)
        self._fresh, self._seed = batch_size - self._replayed, seed

    def __len__(self) -> int:
        return max(self._own // self._fresh, 1)

    def __iter__(self) -> Iterator[list[int]]:
        order, old = list(self.sampler), self._replays()
        for batch in range(len(self)):
            fresh = order[batch * self._fresh : (batch + 1) * self._fresh]
            yield fresh + [next(old) for _ in range(self._replayed)]

    def _replays(self) -> Iterator[int]:
        drawn = np.random.default_rng([self._seed, self.sampler.epoch])
        while True:
            if self._kept < self._replayed:
                yield self._own + int(drawn.integers(self._kept))
            else:
                yield from (self._own + drawn.permutation(self._kept)).tolist()
