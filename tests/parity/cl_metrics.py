"""Continual-learning metrics: the summaries of a chain, against plain loops and the originals where they run."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.parity.comparison import FIGURES, Comparison, Oracle
from trainables.metrics import chain_summary, forward_transfer, omega, ratios, seen_means, step_means, summarize


def check(oracle: Oracle) -> Comparison:
    """The comparison of a chain's records, or of the omegas of a published table."""
    comparison = Comparison(oracle)
    found = _table(oracle) if "final_map" in oracle else _chain(oracle)
    for name, got in found.items():
        if name in oracle:  # TiROD's and mammoth's are left out where the originals do not run
            comparison.compare(name, got, FIGURES)
    return comparison


def _table(oracle: Oracle) -> dict[str, Any]:
    joint_ap = float(oracle["joint_map"])
    reference = np.array([joint_ap, joint_ap])  # the first step counts as 1, whatever the values
    return {"exp_omega_all": [omega(np.array([joint_ap, final]), reference)[-1] for final in oracle["final_map"]]}


def _chain(oracle: Oracle) -> dict[str, Any]:
    ap, joint_ap, class_step = oracle["ap"], oracle["joint_ap"], oracle["class_step"].tolist()
    summaries = summarize({"ap": ap}, class_step, {"ap": joint_ap})
    last = {**summaries[-1], **chain_summary({"ap": ap}, class_step, {"ap": joint_ap})}
    found: dict[str, Any] = {
        "exp_R": step_means(ap, class_step),
        "exp_joint_R": step_means(joint_ap, class_step),
        "exp_joint_seen_map": [records["ap_all"] for records in summarize({"ap": joint_ap}, class_step)],
        "exp_ratio_step1_is_1": np.append(1.0, ratios(seen_means(ap), seen_means(joint_ap))[1:]),
    }
    found |= {name: [records[record] for records in summaries] for name, record in PER_STEP.items()}
    found |= {name: last[record] for name, record in AT_THE_END.items()}
    found |= {name: 100 * last[record] for name, record in PERCENT_AT_THE_END.items()}
    if "full_R_with_zero_shot" in oracle:
        forward = forward_transfer(oracle["full_R_with_zero_shot"], oracle["random_init_scores"])
        found |= {"exp_fwt": forward, "exp_mammoth_fwt": forward}
    return found


PER_STEP = {
    "exp_seen_map": "ap_all",
    "exp_old_map": "ap_old",
    "exp_new_map": "ap_new",
    "exp_harmonic": "hmean",
    "exp_omega_all_cumulative": "omega",
    "exp_forgetting_chaudhry": "forgetting",
    "exp_forgetting_max_incl_last": "forgetting_clamped",
    "exp_bwt_per_step": "bwt",
    "exp_intransigence": "intransigence",
}
AT_THE_END = {
    "exp_avg_incremental_map": "ap_avg",
    "exp_abs_gap": "abs_gap",
    "exp_rel_gap": "rel_gap",
    "exp_omega_all": "omega",
    "exp_omega_kemker_all": "omega_kemker",
    "exp_omega_final": "omega_final",
    "exp_bwt": "bwt",
    "exp_fpp": "fpp",
    "exp_tirod_omega": "tirod_omega",
    "exp_tirod_stability": "tirod_stability",
    "exp_tirod_plasticity": "tirod_plasticity",
    "exp_mammoth_bwt": "bwt",
    "exp_mammoth_forgetting": "forgetting_clamped",
}
PERCENT_AT_THE_END = {
    "exp_rsd_percent": "rsd",
    "exp_rpd_percent": "rpd",
    "exp_rsd_percent_clamped": "rsd_clamped",
    "exp_rpd_percent_clamped": "rpd_clamped",
}
