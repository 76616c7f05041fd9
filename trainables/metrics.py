"""What a chain of steps remembers and learns: AP matrices in, named records out (numpy only).

Shapes: T steps learnt so far, K the step that introduced a class (also T of them), C classes of the whole scenario.
All values are fractions; nan means undefined (not introduced yet, or no ground truth) and is never counted as 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

KINDS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
OMEGA_KINDS = {
    "omega": "ap",
    "omega50": "ap50",
    "omega75": "ap75",
    "omega_s": "ap_small",
    "omega_m": "ap_medium",
    "omega_l": "ap_large",
}


def summarize(
    ap: Mapping[str, FloatArray], class_step: Sequence[int], joint: Mapping[str, FloatArray] | None = None
) -> list[dict[str, float]]:
    """Every record of every step, by name; nan where a record is undefined.

    Args:
        ap: for each of `KINDS` (at least `ap`), AP (T, C) of each class after each step; the chain may be unfinished.
        class_step: (C,) the step that introduces each class, counted from 0.
        joint: the same of the reference models, at least T rows, nan where there is none. If only the last reference
            exists, its row may stand in every step: classes that a step has not seen are left out.

    Raises:
        ValueError: kinds or shapes that do not fit.
    """
    ap, joint = _checked(ap, class_step, joint)
    seen = {kind: seen_means(ap[kind]) for kind in KINDS}
    step_ap_TK = step_means(ap["ap"], class_step)
    omegas = {name: omega(seen[kind], seen_means(joint[kind])) for name, kind in OMEGA_KINDS.items()}
    steps_C = np.asarray(class_step)
    return [
        {
            **_ap_records(seen, step_ap_TK, mean_or_nan(ap["ap"][t, steps_C < t]), t),
            **{name: read(step_ap_TK[: t + 1, : t + 1]) for name, (_, read) in OF_STEPS.items()},
            **_reference_records(ap["ap"][t], joint["ap"][t], steps_C, t),
            **{name: float(omega_T[t]) for name, omega_T in omegas.items()},
            "n_no_gt": float(np.isnan(ap["ap"][t, steps_C <= t]).sum()),
        }
        for t in range(len(step_ap_TK))
    ]


def chain_summary(
    ap: Mapping[str, FloatArray], class_step: Sequence[int], joint: Mapping[str, FloatArray] | None = None
) -> dict[str, float]:
    """The records of a finished chain, at its last step; the arguments are those of `summarize`."""
    ap, joint = _checked(ap, class_step, joint)
    num_steps = len(ap["ap"])
    ratio_T = ratios(seen_means(ap["ap"]), seen_means(joint["ap"][:num_steps]))
    return {
        "omega_kemker": mean_or_nan(ratio_T[1:]),
        "omega_final": float(ratio_T[-1]),
        **_tirod_records(step_means(ap["ap"], class_step), step_means(joint["ap"][:num_steps], class_step)),
    }


def mean_or_nan(values: npt.ArrayLike) -> float:
    """The mean of what is not nan; nan if there is nothing."""
    values = np.asarray(values, dtype=np.float64)
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def seen_means(ap_TC: FloatArray) -> FloatArray:
    """(T,) AP over the classes seen so far (over classes, not over steps); nan entries of `ap_TC` are skipped."""
    return np.array([mean_or_nan(ap_C) for ap_C in ap_TC])


def step_means(ap_TC: FloatArray, class_step: Sequence[int]) -> FloatArray:
    """(T, T) mean AP of step k's classes after step t; nan where k > t."""
    steps_C = np.asarray(class_step)
    num_steps = len(ap_TC)
    means = np.full((num_steps, num_steps), np.nan)
    for t in range(num_steps):
        for k in range(t + 1):
            means[t, k] = mean_or_nan(ap_TC[t, steps_C == k])
    return means


def harmonic_mean(ap_old: float, ap_new: float) -> float:
    """The harmonic mean of the old and the new classes' AP; 0 if both are 0, nan if one is undefined."""
    total = ap_old + ap_new
    return 0.0 if total == 0 else 2 * ap_old * ap_new / total


def forgetting(step_ap_TK: FloatArray) -> float:
    """Mean drop of AP on earlier steps: their best before the last step, minus their value after it.

    Args:
        step_ap_TK: AP of step k's classes after step t, as fractions; nan where k > t.

    Returns:
        Lower is better; negative where later steps helped; nan if there is no earlier step.

    Source: Chaudhry et al., arXiv 1801.10112.
    """
    best_K = np.fmax.reduce(step_ap_TK[:-1, :-1], axis=0, initial=np.nan)
    return mean_or_nan(best_K - step_ap_TK[-1, :-1])


def forgetting_clamped(step_ap_TK: FloatArray) -> float:
    """As `forgetting`, but the best may be the last value, so that no earlier step counts below 0.

    A step without an earlier value is left out, as in `forgetting`.
    Source: aimagelab/mammoth, `forgetting`.
    """
    earlier_best_K = np.fmax.reduce(step_ap_TK[:-1, :-1], axis=0, initial=np.nan)
    return mean_or_nan(np.maximum(earlier_best_K - step_ap_TK[-1, :-1], 0.0))


def backward_transfer(step_ap_TK: FloatArray) -> float:
    """Mean change of AP on earlier steps since they were learnt; higher is better, nan if there is no earlier step.

    Source: Lopez-Paz and Ranzato (GEM), arXiv 1706.08840.
    """
    return mean_or_nan(step_ap_TK[-1, :-1] - np.diagonal(step_ap_TK)[:-1])


def first_drop(step_ap_TK: FloatArray) -> float:
    """The drop of AP on the first step's classes since they were learnt."""
    return float(step_ap_TK[0, 0] - step_ap_TK[-1, 0])


def forward_transfer(zero_shot_ap_TK: FloatArray, untrained_ap_K: FloatArray) -> float:
    """Mean AP of each step's classes just before they are learnt, above that of an untrained head.

    `summarize` leaves it out: it needs a head that covers the classes that are still to come.

    Args:
        zero_shot_ap_TK: AP of step k's classes after step t, also where k > t.
        untrained_ap_K: AP of step k's classes before any training.

    Source: Lopez-Paz and Ranzato (GEM), arXiv 1706.08840.
    """
    return mean_or_nan(np.diagonal(zero_shot_ap_TK, offset=1) - untrained_ap_K[1:])


OF_STEPS: dict[str, tuple[Literal["max", "min"], Callable[[FloatArray], float]]] = {
    "forgetting": ("min", forgetting),
    "forgetting_clamped": ("min", forgetting_clamped),
    "bwt": ("max", backward_transfer),
    "fpp": ("min", first_drop),
}
"""By name what is read off `step_ap_TK`, AP of step k's classes after step t, and which way it is better."""

UPWARD = (
    "ap_all", "ap_old", "ap_new", "ap50_all", "ap75_all", "ap_small", "ap_medium", "ap_large", "ap_avg", "hmean",
    *OMEGA_KINDS,
)  # fmt: skip
DOWNWARD = ("intransigence", "abs_gap", "rel_gap", "rsd", "rsd_clamped", "rpd", "rpd_clamped")
DIRECTIONS = (
    dict.fromkeys(UPWARD, "max")
    | dict.fromkeys(DOWNWARD, "min")
    | {name: direction for name, (direction, _) in OF_STEPS.items()}
)
"""Every record that a sweep can aim at, and which way it is better."""


def ratios(ap: npt.ArrayLike, joint_ap: npt.ArrayLike) -> FloatArray:
    """Elementwise, AP as a share of the reference's AP; nan where that is 0 or undefined."""
    ap, joint_ap = np.asarray(ap, dtype=np.float64), np.asarray(joint_ap, dtype=np.float64)
    return np.divide(ap, joint_ap, out=np.full(ap.shape, np.nan), where=joint_ap != 0)


def omega(seen_T: FloatArray, joint_seen_T: FloatArray) -> FloatArray:
    """(T,) after each step, the mean share of the reference's AP so far; the first step counts as 1.

    Args:
        seen_T: AP over the classes seen so far, after each step.
        joint_seen_T: the same of the reference models, at least as many steps. 0 or nan: the step is skipped.
            All nan: there are no references of this kind, and omega is nan.

    Source: ILYOLOX's table, after Kemker et al., arXiv 1708.02072.
    """
    if np.isnan(joint_seen_T).all():
        return np.full(len(seen_T), np.nan)
    ratio_T = ratios(seen_T, joint_seen_T[: len(seen_T)])
    ratio_T[0] = 1.0
    return np.array([mean_or_nan(ratio_T[: t + 1]) for t in range(len(ratio_T))])


def _ap_records(seen: Mapping[str, FloatArray], step_ap_TK: FloatArray, ap_old: float, t: int) -> dict[str, float]:
    ap_new = float(step_ap_TK[t, t])
    return {
        "ap_all": float(seen["ap"][t]),
        "ap_old": ap_old,
        "ap_new": ap_new,
        "ap50_all": float(seen["ap50"][t]),
        "ap75_all": float(seen["ap75"][t]),
        **{kind: float(seen[kind][t]) for kind in ("ap_small", "ap_medium", "ap_large")},
        **{f"ap_step_{k + 1}": float(step_ap_TK[t, k]) for k in range(t + 1)},
        "ap_avg": mean_or_nan(seen["ap"][: t + 1]),
        "hmean": harmonic_mean(ap_old, ap_new),
    }


def _reference_records(
    ap_C: FloatArray, joint_ap_C: FloatArray, steps_C: npt.NDArray[np.int_], t: int
) -> dict[str, float]:
    """How far step t is from its reference; RSD and RPD after Menezes et al., arXiv 2205.15445."""
    old_C, new_C = steps_C < t, steps_C == t
    ap_all, joint_ap_all = mean_or_nan(ap_C), mean_or_nan(joint_ap_C)
    deficit_C = 1.0 - ratios(ap_C, joint_ap_C)
    rsd, rpd = mean_or_nan(deficit_C[old_C]), mean_or_nan(deficit_C[new_C])
    return {
        "intransigence": mean_or_nan(joint_ap_C[new_C]) - mean_or_nan(ap_C[new_C]),
        "abs_gap": joint_ap_all - ap_all,
        "rel_gap": float(1.0 - ratios(ap_all, joint_ap_all)),
        "rsd": rsd,
        "rsd_clamped": float(np.maximum(rsd, 0.0)),
        "rpd": rpd,
        "rpd_clamped": float(np.maximum(rpd, 0.0)),
        "n_rsd_skipped": float(np.isnan(deficit_C[old_C]).sum()),
    }


def _tirod_records(step_ap_TK: FloatArray, joint_step_ap_TK: FloatArray) -> dict[str, float]:
    """TiROD's figures: shares of the reference's AP on step means, higher is better.

    nan with one step only, or if any step has no ground truth.
    Source: pastifra/TiROD_code, results notebook.
    """
    num_steps = len(step_ap_TK)
    learnt = np.tril_indices(num_steps)
    if num_steps < 2 or np.isnan(step_ap_TK[learnt]).any() or np.isnan(joint_step_ap_TK[learnt]).any():
        return dict.fromkeys(("tirod_omega", "tirod_stability", "tirod_plasticity"), float("nan"))
    old_T, joint_old_T = (
        [means_TK[t, :t].mean() for t in range(1, num_steps)] for means_TK in (step_ap_TK, joint_step_ap_TK)
    )
    new_T, joint_new_T = np.diagonal(step_ap_TK)[1:], np.diagonal(joint_step_ap_TK)[1:]
    return {
        "tirod_omega": float(ratios(step_ap_TK[-1].mean(), joint_step_ap_TK[-1].mean())),
        "tirod_stability": float(ratios(old_T, joint_old_T).mean()),
        "tirod_plasticity": float(ratios(new_T, joint_new_T).mean()),
    }


def _checked(
    ap: Mapping[str, FloatArray], class_step: Sequence[int], joint: Mapping[str, FloatArray] | None
) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """Every kind of both matrices, nan where a step has not seen the class and for the kinds that are not given."""
    joint = joint or {}
    if "ap" not in ap or not set(KINDS).issuperset([*ap, *joint]):
        raise ValueError(f"kinds must be of {', '.join(KINDS)}, `ap` among them, but got {[*ap]} and joint {[*joint]}")
    num_steps, num_classes = np.shape(ap["ap"])
    for name, matrices in (("ap", ap), ("joint", joint)):
        for kind, matrix in matrices.items():
            rows, columns = np.shape(matrix)
            if columns != len(class_step) or rows < num_steps or (name == "ap" and rows > num_steps):
                must_be = f"({num_steps} steps, {len(class_step)} classes)"
                raise ValueError(f"{name}[{kind!r}] must be {must_be}, but got {np.shape(matrix)}")
    if not 1 <= num_steps <= max(class_step) + 1:
        raise ValueError(f"`1 <= rows <= steps` must hold, but got rows={num_steps}, class_step={list(class_step)}")
    nothing = np.full((num_steps, num_classes), np.nan)
    return (
        {kind: _seen_only(ap.get(kind, nothing), class_step) for kind in KINDS},
        {kind: _seen_only(joint.get(kind, nothing), class_step) for kind in KINDS},
    )


def _seen_only(ap_TC: FloatArray, class_step: Sequence[int]) -> FloatArray:
    unseen_TC = np.asarray(class_step) > np.arange(len(ap_TC))[:, None]
    return np.where(unseen_TC, np.nan, np.asarray(ap_TC, dtype=np.float64))
