"""Center resampling and collaborative distillation on YOLOX's kind of detector: repository zhjpqq/ILYOLOX, 2022."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from search_spaces.distributions import BOOL, Choice, IntUniform, LogUniform, Uniform
from search_spaces.growth import NEW_ROW_INIT
from search_spaces.params import When

BY_SCORE = When("select", ("all_by_one", "cls_mean_std"))
BY_SPREAD = When("select", ("all_mean_std", "cls_mean_std"))
BY_CENTER = When("select", ("re_sampling",))
DISTILLED, SHARED = When("which", ("posnoprev",)), When("which", ("posnoprev", "labelwprev"))
BALANCED = When("ckd", (True,))


@dataclass(frozen=True, kw_only=True, slots=True)
class ILYOLOXParams:
    """Defaults are our reading of the paper's figure; the exact final flags are not published."""

    select: Annotated[
        str,
        Choice(("all_by_one", "all_mean_std", "cls_mean_std", "re_sampling")),
        "which of the teacher's boxes become labels; the paper's: re_sampling",
    ] = "re_sampling"
    score_thr: Annotated[float, Uniform(0.05, 0.6), "all_by_one: smallest score; released: 0.3", BY_SCORE] = 0.3
    std_mult: Annotated[
        float, Uniform(0.0, 3.0), "*_mean_std: scores above mean + so many std; released: 1 by class, 2", BY_SPREAD
    ] = 1.0
    sparse_fallback: Annotated[
        bool,
        BOOL,
        "cls_mean_std: score_thr for classes with fewer than two candidates; released: such keep nothing",
        When("select", ("cls_mean_std",)),
    ] = False
    thr_center: Annotated[float, Uniform(0.2, 0.6), "re_sampling: class probability of a centre", BY_CENTER] = 0.3
    thr_other: Annotated[float, Uniform(0.02, 0.3), "re_sampling: smallest score of all", BY_CENTER] = 0.1
    iou_other: Annotated[float, Uniform(0.4, 0.85), "re_sampling: IoU with a centre's box", BY_CENTER] = 0.65
    nms_iou: Annotated[float, Uniform(0.5, 0.95), "NMS of the teacher's boxes; released: 0.95"] = 0.95
    which: Annotated[
        str,
        Choice(("posandprev", "posnoprev", "labelwprev")),
        "locations of the teacher's boxes train as labels, are distilled instead, or train with weights alpha_*",
    ] = "posnoprev"
    ckd: Annotated[bool, BOOL, "weights balanced between class and box errors, location by location", DISTILLED] = True
    ckd_detach: Annotated[bool, BOOL, "no gradient through those weights; released: False", BALANCED] = True
    ckd_exponent: Annotated[float, Uniform(0.5, 2.0), "of both errors; released: 1", BALANCED] = 1.0
    hybrid: Annotated[
        str,
        Choice(("none", "hy1", "hy2", "hy3", "onehot")),
        "class target: the teacher's, sharpened or hard",
        DISTILLED,
    ] = "none"
    cd_loss: Annotated[str, Choice(("bce", "kl", "focal")), "class term; released: bce", DISTILLED] = "bce"
    new_classes: Annotated[
        str,
        Choice(("negative", "ignored")),
        "class term: what the teacher does not know is 0, or left out; released: its full head says about 0",
        DISTILLED,
    ] = "negative"
    T: Annotated[int, IntUniform(1, 10), "temperature of kl", When("cd_loss", ("kl",))] = 1
    alpha_cls: Annotated[float, LogUniform(0.1, 5.0), "of the class term, or of old labels", SHARED] = 1.0
    alpha_loc: Annotated[float, LogUniform(0.1, 5.0), "of the box term, or of old boxes", SHARED] = 1.0
    w_cd: Annotated[float, LogUniform(0.1, 10.0, zero=True), "class term; released: 1", DISTILLED] = 1.0
    w_iou: Annotated[float, Uniform(0.0, 10.0), "IoU term; released: 5", DISTILLED] = 5.0
    w_box: Annotated[float, Uniform(0.0, 5.0), "L1 term, in sides of the image; released: 0", DISTILLED] = 0.0
    new_row_init: Annotated[str, NEW_ROW_INIT, "rows of new classes"] = "focal_prior"


_PAPER = ILYOLOXParams()
_HARD = ILYOLOXParams(select="all_by_one", which="posandprev")
PRESETS = {
    "paper": _PAPER,
    "released": _HARD,
    "cls_only": replace(_PAPER, w_iou=0.0),
    "crs_only": replace(_HARD, select="re_sampling"),
    "ckd_only": replace(_PAPER, select="all_by_one"),
}
"""`released` is what the shipped configuration trains: hard labels; the last two are ablations."""
