"""Elastic response distillation (ERD): Feng, Wang, Yuan, CVPR 2022, arXiv 2204.02136; repository Hi-FT/ERD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from search_spaces.distributions import BOOL, Choice, IntUniform, LogUniform, Uniform
from search_spaces.growth import NEW_ROW_INIT
from search_spaces.params import Keeps, When

REDUCTIONS = Choice(("mean_images", "sum_images", "concat_mean"))
ELASTIC = When("select", ("elastic",))


@dataclass(frozen=True, kw_only=True, slots=True)
class ERDParams:
    """Defaults are the published weights, read per image: the strength does not change with the batch."""

    lambda_cls: Annotated[
        float, LogUniform(0.02, 20.0, zero=True), "weight of the class term; released: 1, summed over images"
    ] = 1.0
    lambda_box: Annotated[
        float, LogUniform(0.02, 20.0, zero=True), "weight of the box term, which has an inner 0.25; released: 1"
    ] = 1.0
    alpha_cls: Annotated[
        float,
        Uniform(0.5, 3.5, 0.25),
        "keep class responses above mean + alpha * std; released: 2",
        ELASTIC,
        Keeps("low"),
    ] = 2.0
    alpha_box: Annotated[
        float,
        Uniform(0.5, 3.5, 0.25),
        "keep box responses above mean + alpha * std; released: 2",
        ELASTIC,
        Keeps("low"),
    ] = 2.0
    select: Annotated[
        str, Choice(("elastic", "all", "topk", "fixed_thr")), "which locations are distilled", Keeps()
    ] = "elastic"
    topk: Annotated[
        int,
        IntUniform(50, 1000, log=True),
        "locations kept per image by select: topk",
        When("select", ("topk",)),
        Keeps("high"),
    ] = 100
    thr: Annotated[
        float,
        Uniform(0.05, 0.5),
        "smallest class probability kept by select: fixed_thr",
        When("select", ("fixed_thr",)),
        Keeps("low"),
    ] = 0.1
    stat_scope: Annotated[
        str,
        Choice(("all_levels", "per_level")),
        "where mean and std are taken; released: all_levels",
        ELASTIC,
        Keeps(),
    ] = "all_levels"
    box_response: Annotated[
        str,
        Choice(("max_logit", "max_prob", "mean_edge_max")),
        "response of a box distribution; released: max_logit",
        Keeps(),
    ] = "max_logit"
    cls_loss: Annotated[str, Choice(("l2_logit", "l2_sigmoid", "bce", "kl")), "class term; released: l2_logit"] = (
        "l2_logit"
    )
    T: Annotated[int, Choice((1, 2, 5, 8, 10, 15, 20)), "temperature of the box term; released: 10"] = 10
    box_weight: Annotated[
        str, Choice(("student", "teacher", "none")), "whose top old-class probability weighs a box; released: student"
    ] = "student"
    box_norm: Annotated[
        str, Choice(("sum", "count", "weight_sum")), "what the box term is divided by; released: sum (nothing)"
    ] = "sum"
    nms_iou: Annotated[float, LogUniform(0.001, 0.6), "NMS threshold of the box selection; released: 0.005"] = 0.005
    cls_reduction: Annotated[str, REDUCTIONS, "class term over images; released 2023: sum_images"] = "mean_images"
    box_reduction: Annotated[str, REDUCTIONS, "box term over images; released: sum_images"] = "mean_images"
    decode_with_stride: Annotated[bool, BOOL, "boxes for NMS in pixels; released: False, in stride units"] = True
    new_row_init: Annotated[str, NEW_ROW_INIT, "rows of new classes; released 2023: torch_default"] = "focal_prior"
    normaliser: Annotated[
        str, Choice(("clamped", "plain")), "box losses over max(weights' sum, 1); released 2022: plain, 0/0 is possible"
    ] = "clamped"
    average_eps: Annotated[bool, BOOL, "float32 epsilon in averages, as mmdet 3; released 2022: False"] = True
    lr_rule: Annotated[str, Choice(("linear", "none")), "lr in proportion to the batch; released 2022: none"] = "linear"


PRESETS = {
    "fixed": ERDParams(),
    "erd_2023": ERDParams(
        cls_reduction="sum_images", box_reduction="sum_images", decode_with_stride=False, new_row_init="torch_default"
    ),
    "erd_2022": ERDParams(
        cls_reduction="concat_mean",
        box_reduction="sum_images",
        decode_with_stride=False,
        normaliser="plain",
        average_eps=False,
        lr_rule="none",
    ),
}
