"""What there is: methods, detectors, and which method fits which detector. Literal tables; targets load when asked."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from search_spaces import erd, finetune, ilyolox, latent, ld, lwf, optim, pseudo_label, replay, sid
from search_spaces.params import merged, params_of
from trainables.recipes import GFL_1X, NANODET, NANODET_TINY, TINY, YOLOY, YOLOY_TINY, Recipe


@dataclass(frozen=True)
class Method:
    """A way to learn new classes.

    Attributes:
        presets: its parameters by the name of a preset; the first one is the default.
        target: builds its distiller; None where there is nothing to distil.
        heads: the families of heads that it runs on.
        parts: what else it does: `replay`, `latent_replay`, `pseudo_label`, `teacher_boxes` (pseudo-labels of its own).
        batch_sizes: by preset, images a device where it works with so many alone.
    """

    presets: Mapping[str, Any]
    target: str | None
    heads: tuple[str, ...]
    parts: tuple[str, ...] = ()
    batch_sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def params(self) -> type:
        """The class of its parameters."""
        return type(self.presets[self.default_preset])

    @property
    def default_preset(self) -> str:
        """The preset of who names none."""
        return next(iter(self.presets))

    @property
    def taught(self) -> bool:
        """Whether it has a teacher."""
        return self.target is not None or "pseudo_label" in self.parts

    @property
    def replays(self) -> bool:
        """Whether it sees images of earlier steps, or what was kept of them."""
        return bool({"replay", "latent_replay"} & set(self.parts))


@dataclass(frozen=True)
class Head:
    """A family of heads; how one is asked and trained is told by `trainables.detectors.families`.

    Attributes:
        classifiers: the convolutions with a row for each class.
        rows_behind: rows of box outputs that follow those of the classes in the same convolution.
        by_prediction: whether its assigner looks at what the student predicts.
        towers: the features that it has beside the neck's.
    """

    classifiers: tuple[str, ...]
    rows_behind: int = 0
    by_prediction: bool = False
    towers: tuple[str, ...] = ("cls_tower", "reg_tower")


@dataclass(frozen=True)
class Detector:
    """A detector by family of its head; `target(num_classes, recipe, **options)` returns its mmdet model config."""

    head: str
    target: str
    recipe: Recipe
    optim: type
    options: Mapping[str, Any] = field(default_factory=dict)


HEADS = {
    "gfl": Head(("bbox_head.gfl_cls",)),
    "gflv2": Head(("bbox_head.gfl_cls",)),
    "yolox": Head(tuple(f"bbox_head.multi_level_conv_cls.{level}" for level in range(3)), by_prediction=True),
    "nanodet": Head(
        tuple(f"bbox_head.gfl_cls.{level}" for level in range(4)),
        rows_behind=4 * 8,  # edges, each with reg_max + 1 bins
        by_prediction=True,
        towers=("cls_tower",),
    ),
}

_ANY, _GFL = tuple(HEADS), ("gfl", "gflv2")
_ALONE = {
    "finetune": Method(finetune.PRESETS, None, _ANY),
    "erd": Method(erd.PRESETS, "trainables.distillation.erd:ERD", (*_GFL, "nanodet"), batch_sizes={"erd_2022": 2}),
    "ld": Method(ld.PRESETS, "trainables.distillation.ld:LD", _GFL),
    "lwf": Method(lwf.PRESETS, "trainables.distillation.lwf:LwF", _ANY),
    "sid": Method(sid.PRESETS, "trainables.distillation.sid:SID", _ANY),
    "latent": Method(latent.PRESETS, "trainables.distillation.sid:SID", _ANY),
    "latent_replay": Method(latent.REPLAY_PRESETS, None, _ANY, ("latent_replay",)),
    "replay": Method(replay.PRESETS, None, _ANY, ("replay",)),
    "pseudo_label": Method(pseudo_label.PRESETS, None, _ANY, ("pseudo_label",)),
    "ilyolox": Method(ilyolox.PRESETS, "trainables.distillation.ckd:CKD", ("yolox",), ("teacher_boxes",)),
}
_PARTS = {"replay": replay.ReplayParams, "pseudo_label": pseudo_label.PseudoLabelParams}
_DISTILLERS = tuple(name for name, method in _ALONE.items() if method.target and not method.parts)
_COMBINED = {
    ("replay",): (*_DISTILLERS, "ilyolox"),
    ("pseudo_label",): _DISTILLERS,
    ("replay", "pseudo_label"): ("", *_DISTILLERS),
}


def _combined(parts: tuple[str, ...], distiller: str) -> Method:
    alone = _ALONE.get(distiller)
    name, classes = "-".join(filter(None, (*parts, distiller))), [_PARTS[part] for part in parts]
    if alone is None:
        cls = merged(name, classes)
        return Method({"default": cls()}, None, _ANY, parts)
    scoped = "loss_scope" in params_of(alone.params)  # else the distiller leaves old classes to itself
    cls = merged(name, [*classes, alone.params], without=() if scoped else ("loss_scope",))
    presets = {preset: cls(**asdict(values)) for preset, values in alone.presets.items()}
    return replace(alone, presets=presets, parts=(*parts, *alone.parts))


METHODS = _ALONE | {
    "-".join(filter(None, (*parts, distiller))): _combined(parts, distiller)
    for parts, distillers in _COMBINED.items()
    for distiller in distillers
}
"""By name; `replay-sid` is SID with a buffer."""

_TINY, _RESNET = "trainables.detectors.gfl:gfl_tiny", "trainables.detectors.gfl:gfl"
_V2 = {"head": "trainables.detectors.heads.GFLv2Head"}
DETECTORS = {
    "gfl_r18_tiny": Detector("gfl", _TINY, TINY, optim.TinyOptimParams),
    **{
        f"gfl_r{n}_small": Detector("gfl", _TINY, TINY, optim.TinyOptimParams, {"depth": n, "width": 32})
        for n in (18, 34)
    },
    "gflv2_r18_tiny": Detector("gflv2", _TINY, TINY, optim.TinyOptimParams, _V2),
    **{f"gfl_r{n}": Detector("gfl", _RESNET, GFL_1X, optim.OptimParams, {"depth": n}) for n in (18, 34, 50, 101)},
    **{
        f"gflv2_r{n}": Detector("gflv2", _RESNET, GFL_1X, optim.OptimParams, {"depth": n, **_V2})
        for n in (18, 34, 50, 101)
    },
    "yoloy_tiny": Detector("yolox", "trainables.detectors.yolox:yoloy_tiny", YOLOY_TINY, optim.TinyOptimParams),
    **{
        f"yoloy_r{n}": Detector("yolox", "trainables.detectors.yolox:yoloy", YOLOY, optim.YOLOOptimParams, {"depth": n})
        for n in (18, 50)
    },
    **{
        name: Detector("yolox", "trainables.detectors.yolox:yolox", YOLOY, optim.YOLOOptimParams, {"widen": widen})
        for name, widen in (("yolox_s", 0.5), ("yolox_tiny", 0.375))
    },
    "nanodet_tiny": Detector(
        "nanodet", "trainables.detectors.nanodet:nanodet_tiny", NANODET_TINY, optim.TinyOptimParams
    ),
    **{
        name: Detector(
            "nanodet", "trainables.detectors.nanodet:nanodet", NANODET, optim.NanoDetOptimParams, {"width": width}
        )
        for name, width in (("nanodet_plus_m_0.5x", 0.5), ("nanodet_plus_m", 1.0), ("nanodet_plus_m_1.5x", 1.5))
    },
    "gfl_r101_dcn": Detector("gfl", _RESNET, GFL_1X, optim.OptimParams, {"depth": 101, "dcn": True}),
}


def misfit(method: str, detector: str) -> str | None:
    """Why a method cannot run on a detector, or None."""
    head, heads = DETECTORS[detector].head, METHODS[method].heads
    if head in heads:
        return None
    return f"method {method!r} needs a detector of {', '.join(heads)}, but got detector={detector!r} ({head})"


def part_config(detector: str, part: str = "bbox_head", num_classes: int = 1) -> dict[str, Any]:
    """A `part` of a detector's mmdet config."""
    entry = DETECTORS[detector]
    found: dict[str, Any] = load(entry.target)(num_classes, entry.recipe, **entry.options)[part]
    return found


def strides(head: Mapping[str, Any]) -> tuple[int, ...]:
    """Of the levels of a `bbox_head` config, in px."""
    return tuple(head["strides"] if "strides" in head else head["anchor_generator"]["strides"])


def load(target: str) -> Any:
    """The object that `package.module:name` names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
