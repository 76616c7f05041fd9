"""Optimisation of the incremental steps, shared by all methods. The base step keeps its detector's recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from search_spaces.distributions import IntUniform, LogUniform


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimParams:
    """SGD at the scale of COCO (GFL 1x, mmdet)."""

    lr_scale: Annotated[float, LogUniform(0.05, 2.0), "factor on the recipe's rate, after the rule for the batch"] = 1.0
    weight_decay: Annotated[float, LogUniform(1e-5, 1e-3), "GFL 1x: 1e-4"] = 1e-4
    warmup_iters: Annotated[int, IntUniform(0, 1500), "linear warm-up; GFL 1x: 500"] = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class YOLOOptimParams:
    """SGD at the scale of COCO, as in repository zhjpqq/ILYOLOX."""

    lr_scale: Annotated[float, LogUniform(0.05, 2.0), "factor on the recipe's rate, after the rule for the batch"] = 1.0
    weight_decay: Annotated[float, LogUniform(1e-5, 1e-3), "released: 1e-4"] = 1e-4
    warmup_iters: Annotated[int, IntUniform(0, 1500), "linear warm-up; released: 1500"] = 1500


@dataclass(frozen=True, kw_only=True, slots=True)
class NanoDetOptimParams:
    """AdamW at the scale of VOC (NanoDet-Plus)."""

    lr_scale: Annotated[float, LogUniform(0.1, 3.0), "factor on the recipe's rate, after the rule for the batch"] = 1.0
    weight_decay: Annotated[float, LogUniform(1e-3, 1e-1), "NanoDet-Plus: 0.05"] = 0.05
    warmup_iters: Annotated[int, IntUniform(0, 1500), "linear warm-up; NanoDet-Plus: 500"] = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class TinyOptimParams:
    """AdamW at the scale of the digit scenes."""

    lr_scale: Annotated[float, LogUniform(0.25, 2.0), "factor on the recipe's rate, after the rule for the batch"] = 1.0
    weight_decay: Annotated[float, LogUniform(1e-3, 1e-1), "recipe of the small detectors: 0.05"] = 0.05
    warmup_iters: Annotated[int, IntUniform(0, 200), "linear warm-up; recipe of the small detectors: 30"] = 30
