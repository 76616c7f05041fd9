"""Localization distillation (LD): Zheng et al., CVPR 2022, arXiv 2102.12252; repository HikariTJU/LD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from search_spaces.distributions import BOOL, Choice, IntUniform, LogUniform, Uniform
from search_spaces.growth import NEW_ROW_INIT
from search_spaces.params import When

IMITATING = When("imitation", ("fitnet", "finegrained", "gibox", "decouple"))


@dataclass(frozen=True, kw_only=True, slots=True)
class LDParams:
    """Defaults are those of the paper's R50 on COCO: main LD, class KD and LD in the valuable region."""

    w_ld: Annotated[float, LogUniform(0.05, 1.0, zero=True), "LD at positive locations; released: 0.25"] = 0.25
    w_vlr: Annotated[
        float, LogUniform(0.05, 1.0, zero=True), "LD in the valuable localisation region; released: 0.25"
    ] = 0.25
    T_ld: Annotated[int, IntUniform(1, 20), "temperature of both; released: 10"] = 10
    gamma: Annotated[float, Uniform(0.0, 0.5), "how far the valuable region reaches; released: 0.25"] = 0.25
    vlr_metric: Annotated[
        str, Choice(("released", "diou")), "nearness to a box: of the released code, or DIoU as the paper writes"
    ] = "released"
    w_kd: Annotated[float, Uniform(0.0, 10.0), "class KD at positive locations; released: 10"] = 10.0
    w_kd_vlr: Annotated[float, Uniform(0.0, 10.0), "class KD in the valuable region; released: 0"] = 0.0
    T_kd: Annotated[int, IntUniform(1, 8), "temperature of class KD; released: 2"] = 2
    imitation: Annotated[
        str,
        Choice(("none", "fitnet", "finegrained", "gibox", "decouple")),
        "where FPN features are imitated; the paper's table: none",
    ] = "none"
    w_im: Annotated[float, Uniform(0.0, 4.0), "feature imitation; released R50: 2", IMITATING] = 2.0
    gi_scope: Annotated[
        str,
        Choice(("image", "batch")),
        "ten general instances of each image or, as released, of the batch",
        When("imitation", ("gibox",)),
    ] = "image"
    use_dfl: Annotated[bool, BOOL, "the distribution focal loss against ground truth as well; released: True"] = True
    ld_norm: Annotated[
        str, Choice(("none", "per_image")), "released: none, a sum that grows with the local batch, meant for 2 or 3"
    ] = "per_image"
    normaliser: Annotated[
        str, Choice(("clamped", "shifted")), "box losses over max(weights' sum, 1); released: the sum + 1e-6"
    ] = "clamped"
    new_row_init: Annotated[str, NEW_ROW_INIT, "rows of new classes"] = "focal_prior"

    @property
    def features(self) -> tuple[str, ...]:
        """What it listens to beside a teacher's logits, everywhere."""
        return () if self.imitation == "none" else ("fpn",)


PRESETS = {
    "vlr": LDParams(),
    "main": LDParams(w_vlr=0.0),
    "released": LDParams(ld_norm="none", normaliser="shifted", imitation="finegrained"),
    "retain": LDParams(w_kd_vlr=10.0),
}
