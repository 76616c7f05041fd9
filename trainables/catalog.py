"""What there is: methods, detectors, and which method fits which detector. Literal tables; targets load when asked."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from search_spaces import erd, finetune, optim
from trainables.recipes import GFL_1X, TINY, Recipe


@dataclass(frozen=True)
class Method:
    """A way to learn new classes. `target` builds its distiller, None where there is nothing to distil."""

    params: type
    presets: Mapping[str, Any]
    default_preset: str
    target: str | None
    heads: tuple[str, ...]


@dataclass(frozen=True)
class Detector:
    """A detector by family of its head; `target(num_classes, recipe, **options)` returns its mmdet model config."""

    head: str
    target: str
    recipe: Recipe
    optim: type
    options: Mapping[str, Any] = field(default_factory=dict)


METHODS = {
    "finetune": Method(finetune.FinetuneParams, finetune.PRESETS, "default", None, ("gfl",)),
    "erd": Method(erd.ERDParams, erd.PRESETS, "fixed", "trainables.distillation.erd:ERD", ("gfl",)),
}

_GFL = "trainables.detectors.gfl:gfl"
DETECTORS = {
    "gfl_r18_tiny": Detector("gfl", "trainables.detectors.gfl:gfl_r18_tiny", TINY, optim.TinyOptimParams),
    "gfl_r18": Detector("gfl", _GFL, GFL_1X, optim.OptimParams, {"depth": 18}),
    "gfl_r34": Detector("gfl", _GFL, GFL_1X, optim.OptimParams, {"depth": 34}),
    "gfl_r50": Detector("gfl", _GFL, GFL_1X, optim.OptimParams, {"depth": 50}),
    "gfl_r101": Detector("gfl", _GFL, GFL_1X, optim.OptimParams, {"depth": 101}),
}


def misfit(method: str, detector: str) -> str | None:
    """Why a method cannot run on a detector, or None."""
    head, heads = DETECTORS[detector].head, METHODS[method].heads
    if head in heads:
        return None
    return f"method {method!r} needs a detector of {', '.join(heads)}, but got detector={detector!r} ({head})"


def load(target: str) -> Any:
    """The object that `package.module:name` names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
