"""Scenarios: which classes are learnt in which step. A label id is a position in the scenario's class order.

A scenario is data: its steps are consecutive slices of one class order. Named splits follow the literature
(ERD, arXiv 2204.02136; ILYOLOX; Continual_Nanodet, arXiv 2409.01872); any other is written as groups of names.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from trainables.errors import DataError
from trainables.files import digest

DIGITS = tuple("0123456789")

VOC = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear",
    "hair drier", "toothbrush",
)  # fmt: skip

CLASS_NAMES = {"digits": DIGITS, "coco": COCO, "voc": VOC}

NAMED = (
    "digits/10", "digits/5+5", "digits/4+3+3", "digits/2+2+2+2+2", "digits/5+1+1+1+1+1",
    "coco/80", "coco/40+40", "coco/50+30", "coco/60+20", "coco/70+10", "coco/40+20+20",
    "coco/40+10+10+10+10", "coco/20+20+20+20", "coco/last40+first40",
    "voc/20", "voc/19+1", "voc/15+5", "voc/10+10", "voc/15+1+1+1+1+1",
)  # fmt: skip


@dataclass(frozen=True)
class Scenario:
    """Steps of classes. `steps[t]` holds the names that step t introduces (t counts from 0).

    `name` is for people; two scenarios with the same steps are the same scenario.
    """

    name: str
    steps: tuple[tuple[str, ...], ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """All class names in label order."""
        return tuple(name for step in self.steps for name in step)

    def seen(self, step: int) -> tuple[str, ...]:
        """The class names of steps 0 to `step`, in label order."""
        return tuple(name for names in self.steps[: step + 1] for name in names)

    @property
    def class_step(self) -> tuple[int, ...]:
        """The step that introduces each label."""
        return tuple(t for t, names in enumerate(self.steps) for _ in names)

    @property
    def first_step(self) -> int:
        """The first step that a trial trains: the one after the base step, which all trials share, or the only one."""
        return min(1, len(self.steps) - 1)

    @property
    def num_trained(self) -> int:
        """How many steps a trial trains."""
        return len(self.steps) - self.first_step

    @property
    def digest(self) -> str:
        """Identity of the steps, whatever the scenario is called."""
        return digest(self.steps)


def named_scenario(name: str, order: str | Sequence[str] = "coco_id") -> Scenario:
    """The scenario of a name such as `coco/40+20+20`.

    Args:
        name: one of `NAMED`.
        order: `coco_id` (the data set's own order), `alphabetical`, `shuffle:<seed>`, or every class name in order.

    Raises:
        DataError: unknown name or order, or an order that is not a permutation of the classes.
    """
    if name not in NAMED:
        raise DataError("scenario", [f"{name!r} is unknown; available: {', '.join(sorted(NAMED))}"])
    family, _, split = name.partition("/")
    names = class_order(CLASS_NAMES[family], order)
    if split == "last40+first40":
        groups = [names[40:], names[:40]]
    else:
        sizes = [int(size) for size in split.split("+")]
        starts = [sum(sizes[:t]) for t in range(len(sizes))]
        groups = [names[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    label = name if order == "coco_id" else f"{name}@{order if isinstance(order, str) else digest(list(order))[:8]}"
    return Scenario(label, tuple(groups))


def class_order(names: tuple[str, ...], order: str | Sequence[str]) -> tuple[str, ...]:
    """`names` put in `order`; see `named_scenario`."""
    if not isinstance(order, str):
        if sorted(order) != sorted(names):
            missing, extra = sorted(set(names) - set(order)), sorted(set(order) - set(names))
            raise DataError("class order", [f"must name each class once; missing {missing}, unknown {extra}"])
        return tuple(order)
    if order == "coco_id":
        return names
    if order == "alphabetical":
        return tuple(sorted(names))
    if match := re.fullmatch(r"shuffle:(\d{1,20})", order):
        return tuple(random.Random(int(match[1])).sample(names, len(names)))
    raise DataError("class order", [f"{order!r} is unknown; available: coco_id, alphabetical, shuffle:<seed>, a list"])


def custom_scenario(groups: Sequence[Sequence[str]], name: str = "custom") -> Scenario:
    """The scenario of groups of class names.

    Raises:
        DataError: an empty step, or a class named twice.
    """
    problems = [
        f"step {t} is empty; every step needs at least one class" for t, group in enumerate(groups, 1) if not group
    ]
    flat = [label for group in groups for label in group]
    problems += [
        f"class {label!r} is named {flat.count(label)} times" for label in sorted(set(flat)) if flat.count(label) > 1
    ]
    if not groups:
        problems.append("there are no steps")
    if problems:
        raise DataError("scenario", problems)
    return Scenario(name, tuple(tuple(group) for group in groups))
