"""Metrics of a chain, by hand, by their laws and where records are missing."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trainables.metrics import (
    KINDS,
    FloatArray,
    chain_summary,
    forgetting,
    forgetting_clamped,
    forward_transfer,
    mean_or_nan,
    omega,
    step_means,
    summarize,
)

pytestmark = pytest.mark.filterwarnings("error")

NAN = float("nan")
RECORDS = (
    "ap_all", "ap_old", "ap_new", "ap50_all", "ap75_all", "ap_small", "ap_medium", "ap_large", "ap_step_1", "ap_avg",
    "hmean", "forgetting", "forgetting_clamped", "bwt", "fpp", "intransigence", "abs_gap", "rel_gap",
    "omega", "omega50", "omega75", "omega_s", "omega_m", "omega_l",
    "rsd", "rsd_clamped", "rpd", "rpd_clamped", "n_no_gt", "n_rsd_skipped",
)  # fmt: skip
COUNTS = {"n_no_gt", "n_rsd_skipped"}
LINE = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)


def lower(rows: Sequence[Sequence[float]]) -> FloatArray:
    """A chain of one class a step, from the rows of its lower triangle."""
    return np.array([[*row, *[NAN] * (len(rows) - len(row))] for row in rows])


@st.composite
def chains(draw: st.DrawFn, min_steps: int = 1, max_steps: int = 4) -> tuple[FloatArray, FloatArray, list[int]]:
    """AP, the references' AP and class_step of a chain; some classes have no ground truth."""
    num_steps = draw(st.integers(min_steps, max_steps))
    extra = draw(st.lists(st.integers(0, num_steps - 1), max_size=5))
    class_step = draw(st.permutations([*range(num_steps), *extra]))
    shape = (num_steps, len(class_step))
    cells = st.lists(LINE, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])
    without_truth = draw(st.lists(st.booleans(), min_size=shape[1], max_size=shape[1]))
    unknown_TC = np.array(without_truth) | (np.array(class_step) > np.arange(num_steps)[:, None])
    ap, joint = (np.where(unknown_TC, NAN, np.reshape(draw(cells), shape)) for _ in range(2))
    return ap, joint, list(class_step)


def of_all_kinds(ap: FloatArray) -> dict[str, FloatArray]:
    return dict.fromkeys(KINDS, ap)


def assert_same(
    got: Sequence[dict[str, float]], expected: Sequence[dict[str, float]], but: Set[str] = frozenset()
) -> None:
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert one.keys() == other.keys()
        kept = sorted(one.keys() - but)
        np.testing.assert_allclose([one[name] for name in kept], [other[name] for name in kept], rtol=0, atol=1e-12)


def test_every_record_of_a_step_is_there() -> None:
    first, second = summarize({"ap": lower([[0.5], [0.3, 0.4]])}, [0, 1])
    assert first.keys() == set(RECORDS)
    assert second.keys() == {*RECORDS, "ap_step_2"}
    assert {type(value) for value in [*first.values(), *second.values()]} == {float}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        # The published small benchmark, to its three decimals: finetuning, then ERD.
        (0.000, 0.764, {"ap_all": 0.382, "forgetting": 0.727, "bwt": -0.727, "intransigence": 0.005, "abs_gap": 0.389,
                        "rel_gap": 0.505, "omega": 0.748, "hmean": 0.0, "fpp": 0.727}),
        (0.730, 0.685, {"ap_all": 0.707, "forgetting": -0.003, "bwt": 0.003, "intransigence": 0.084, "abs_gap": 0.064,
                        "rel_gap": 0.083, "omega": 0.959, "hmean": 0.707, "forgetting_clamped": 0.0}),
    ],
)  # fmt: skip
def test_two_steps_of_the_small_benchmark(old: float, new: float, expected: dict[str, float]) -> None:
    ap, joint = lower([[0.727], [old, new]]), lower([[0.727], [0.773, 0.769]])
    last = summarize({"ap": ap}, [0, 1], {"ap": joint})[-1]
    assert {name: last[name] for name in expected} == pytest.approx(expected, abs=1e-3)


def test_three_steps_by_hand() -> None:
    ap = lower([[0.5], [0.6, 0.7], [0.65, 0.5, 0.9]])
    joint = lower([[0.5], [0.8, 0.7], [0.75, 0.5, 0.8]])
    _, second, third = summarize({"ap": ap}, [0, 1, 2], {"ap": joint})
    assert (second["forgetting"], second["bwt"]) == pytest.approx((-0.1, 0.1))
    expected = {
        "ap_all": 2.05 / 3,
        "ap_old": 0.575,
        "ap_new": 0.9,
        "ap_step_2": 0.5,
        "ap_avg": (0.5 + 0.65 + 2.05 / 3) / 3,
        "hmean": 2 * 0.575 * 0.9 / 1.475,
        "forgetting": ((0.6 - 0.65) + (0.7 - 0.5)) / 2,
        "forgetting_clamped": (0.0 + 0.2) / 2,
        "bwt": (0.15 - 0.2) / 2,
        "fpp": -0.15,
        "intransigence": -0.1,
        "abs_gap": 0.0,
        "rel_gap": 0.0,
        "omega": (1 + 0.65 / 0.75 + 1) / 3,
        "rsd": (0.1 / 0.75 + 0.0) / 2,
        "rpd": -0.1 / 0.8,
        "rpd_clamped": 0.0,
    }
    assert {name: third[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    at_the_end = chain_summary({"ap": ap}, [0, 1, 2], {"ap": joint})
    assert at_the_end == pytest.approx(
        {
            "omega_kemker": (0.65 / 0.75 + 1) / 2,
            "omega_final": 1.0,
            "tirod_omega": 1.0,
            "tirod_stability": (0.6 / 0.8 + 0.575 / 0.625) / 2,
            "tirod_plasticity": (0.7 / 0.7 + 0.9 / 0.8) / 2,
        },
        abs=1e-12,
    )


def test_omega_of_the_published_table() -> None:
    assert omega(np.array([33.61, 31.10]), np.array([33.61, 33.61]))[-1] == pytest.approx(0.963, abs=5e-4)


def test_forward_transfer_looks_one_step_ahead() -> None:
    zero_shot = np.array([[0.5, 0.1, 0.3], [0.4, 0.6, 0.05], [0.3, 0.5, 0.7]])
    assert forward_transfer(zero_shot, np.array([0.9, 0.02, 0.01])) == pytest.approx((0.08 + 0.04) / 2)


def test_a_mean_over_nothing_is_nan() -> None:
    assert np.isnan(mean_or_nan([]))
    assert np.isnan(mean_or_nan([NAN]))
    assert mean_or_nan([NAN, 1.0, 2.0]) == 1.5


@given(chains(max_steps=1))
def test_one_step_has_nothing_to_forget(chain: tuple[FloatArray, FloatArray, list[int]]) -> None:
    ap, joint, class_step = chain
    assume(not np.isnan(joint).all())
    (only,) = summarize({"ap": ap}, class_step, {"ap": joint})
    assert only["omega"] == 1
    for name in ("forgetting", "forgetting_clamped", "bwt", "hmean", "ap_old", "rsd"):
        assert np.isnan(only[name])
    at_the_end = chain_summary({"ap": ap}, class_step, {"ap": joint})
    assert np.isnan([at_the_end[name] for name in ("omega_kemker", "tirod_omega", "tirod_stability")]).all()


@given(chains())
def test_ap_all_is_the_mean_of_steps_by_their_classes(chain: tuple[FloatArray, FloatArray, list[int]]) -> None:
    ap, _, class_step = chain
    has_truth = ~np.isnan(ap[-1])
    weights = np.array([has_truth[np.array(class_step) == k].sum() for k in range(len(ap))])
    for t, records in enumerate(summarize({"ap": ap}, class_step)):
        means = np.nan_to_num([records[f"ap_step_{k + 1}"] for k in range(t + 1)])
        total = weights[: t + 1].sum()
        expected = means @ weights[: t + 1] / total if total else NAN
        assert records["ap_all"] == pytest.approx(expected, abs=1e-12, nan_ok=True)
        ends = np.array([records["ap_old"], records["ap_new"]])
        if not np.isnan(ends).any():
            assert ends.min() - 1e-12 <= records["ap_all"] <= ends.max() + 1e-12


@given(chains())
def test_the_reference_itself_has_no_gap(chain: tuple[FloatArray, FloatArray, list[int]]) -> None:
    ap, _, class_step = chain
    assume(not np.isnan(ap).all())
    for records in summarize(of_all_kinds(ap), class_step, of_all_kinds(ap)):
        for name in ("abs_gap", "rel_gap", "intransigence", "rsd", "rpd", "rsd_clamped", "rpd_clamped"):
            assert records[name] == 0 or np.isnan(records[name])
        for name in ("omega", "omega50", "omega75", "omega_s", "omega_m", "omega_l"):
            assert records[name] == 1


@given(chains(min_steps=2))
def test_forgetting_against_its_kin(chain: tuple[FloatArray, FloatArray, list[int]]) -> None:
    ap, _, class_step = chain
    for records in summarize({"ap": ap}, class_step)[1:]:
        assert np.isnan(records["forgetting"]) == np.isnan(records["bwt"])
        assert not records["forgetting"] > records["forgetting_clamped"]
        assert not records["forgetting"] < -records["bwt"] - 1e-12
    second = summarize({"ap": ap}, class_step)[1]
    assert second["forgetting"] == pytest.approx(second["fpp"], abs=1e-12, nan_ok=True)


@given(chains(min_steps=2))
def test_forgetting_is_lost_transfer_where_each_step_was_best_when_learnt(
    chain: tuple[FloatArray, FloatArray, list[int]],
) -> None:
    ap, _, class_step = chain
    for c, k in enumerate(class_step):
        ap[k, c] = np.max(ap[k:, c])  # nan stays nan
    for records in summarize({"ap": ap}, class_step):
        assert records["forgetting"] == pytest.approx(-records["bwt"], abs=1e-12, nan_ok=True)


@given(chains(), st.data())
def test_the_order_of_classes_means_nothing(
    chain: tuple[FloatArray, FloatArray, list[int]], data: st.DataObject
) -> None:
    ap, joint, class_step = chain
    order = data.draw(st.permutations(range(len(class_step))))
    shuffled = [class_step[c] for c in order]
    assert_same(
        summarize({"ap": ap[:, order]}, shuffled, {"ap": joint[:, order]}),
        summarize({"ap": ap}, class_step, {"ap": joint}),
    )


@given(chains(), st.data())
def test_a_class_without_ground_truth_is_counted_and_left_out(
    chain: tuple[FloatArray, FloatArray, list[int]], data: st.DataObject
) -> None:
    ap, joint, class_step = chain
    step = data.draw(st.integers(0, len(ap) - 1))
    nothing = np.full((len(ap), 1), NAN)
    before = summarize({"ap": ap}, class_step, {"ap": joint})
    after = summarize({"ap": np.hstack([ap, nothing])}, [*class_step, step], {"ap": np.hstack([joint, nothing])})
    assert_same(after, before, but=COUNTS)
    for t, (more, fewer) in enumerate(zip(after, before, strict=True)):
        assert more["n_no_gt"] - fewer["n_no_gt"] == (step <= t)
        assert more["n_rsd_skipped"] - fewer["n_rsd_skipped"] == (step < t)


@given(chains(min_steps=2))
def test_an_unfinished_chain_says_what_the_finished_one_said(
    chain: tuple[FloatArray, FloatArray, list[int]],
) -> None:
    ap, joint, class_step = chain
    finished = summarize(of_all_kinds(ap), class_step, of_all_kinds(joint))
    assert_same(summarize(of_all_kinds(ap[:-1]), class_step, of_all_kinds(joint)), finished[:-1])


@given(chains())
def test_the_last_reference_may_stand_in_every_step(chain: tuple[FloatArray, FloatArray, list[int]]) -> None:
    ap, joint, class_step = chain
    everywhere = np.broadcast_to(joint[-1], joint.shape)
    only_seen = np.where(np.array(class_step) > np.arange(len(ap))[:, None], NAN, everywhere)
    assert_same(
        summarize({"ap": ap}, class_step, {"ap": everywhere}), summarize({"ap": ap}, class_step, {"ap": only_seen})
    )


def test_a_step_without_ground_truth_drops_out() -> None:
    ap, joint = lower([[0.5], [0.4, NAN], [0.3, NAN, 0.6]]), lower([[0.5], [0.5, NAN], [0.5, NAN, 0.7]])
    _, second, third = summarize({"ap": ap}, [0, 1, 2], {"ap": joint})
    assert np.isnan([second["ap_new"], second["hmean"], second["intransigence"], third["ap_step_2"]]).all()
    assert (third["forgetting"], third["bwt"], third["n_no_gt"]) == pytest.approx((0.2, -0.2, 1))
    assert third["omega"] == pytest.approx((1 + 0.4 / 0.5 + 0.45 / 0.6) / 3)
    at_the_end = chain_summary({"ap": ap}, [0, 1, 2], {"ap": joint})
    assert np.isnan([value for name, value in at_the_end.items() if name.startswith("tirod_")]).all()


def test_a_first_step_without_ground_truth_leaves_omega_finite() -> None:
    ap, joint = lower([[NAN], [NAN, 0.3]]), lower([[NAN], [NAN, 0.6]])
    assert [records["omega"] for records in summarize({"ap": ap}, [0, 1], {"ap": joint})] == [1.0, 0.75]


def test_references_of_zero_are_skipped_and_counted() -> None:
    ap = np.array([[0.2, 0.4, 0.3, NAN], [0.1, 0.3, 0.2, 0.5]])
    joint = np.array([[0.0, 0.0, 0.0, NAN], [0.0, 0.4, NAN, 0.0]])
    last = summarize({"ap": ap}, [0, 0, 0, 1], {"ap": joint})[-1]
    assert last["rsd"] == pytest.approx(0.25)
    assert last["n_rsd_skipped"] == 2
    assert np.isnan(last["rpd"])
    nothing = np.zeros((2, 4))
    first, last = summarize({"ap": ap}, [0, 0, 0, 1], {"ap": nothing})
    assert np.isnan([first["rel_gap"], last["rel_gap"]]).all()
    assert (first["omega"], last["omega"]) == (1, 1)


def test_without_references_only_their_metrics_are_nan() -> None:
    last = summarize({"ap": lower([[0.5], [0.3, 0.4]])}, [0, 1])[-1]
    names = {"intransigence", "abs_gap", "rel_gap", "omega", "rsd", "rsd_clamped", "rpd", "rpd_clamped"}
    assert np.isnan([last[name] for name in names]).all()
    assert np.isfinite([last[name] for name in ("ap_all", "ap_old", "ap_new", "hmean", "forgetting", "bwt")]).all()


def test_each_kind_feeds_its_own_records() -> None:
    ap = {kind: lower([[0.5], [0.1 * n, 0.1 * n]]) for n, kind in enumerate(KINDS, start=1)}
    joint = dict.fromkeys(KINDS, lower([[0.5], [0.8, 0.8]]))
    last = summarize(ap, [0, 1], joint)[-1]
    aps = [last[name] for name in ("ap_all", "ap50_all", "ap75_all", "ap_small", "ap_medium", "ap_large")]
    omegas = [last[name] for name in ("omega", "omega50", "omega75", "omega_s", "omega_m", "omega_l")]
    assert aps == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert omegas == pytest.approx([(1 + n / 8) / 2 for n in range(1, 7)])


def test_omega_of_a_kind_without_any_ground_truth_is_nan() -> None:
    ap = lower([[0.5], [0.3, 0.4]])
    kinds = {"ap": ap, "ap_large": np.full((2, 2), NAN)}
    for records in summarize(kinds, [0, 1], kinds):
        assert (records["omega"], np.isnan(records["omega_l"])) == (1, True)


def test_matrix_functions_leave_their_input_alone() -> None:
    ap = lower([[0.5], [0.6, 0.7], [0.65, 0.5, 0.9]])
    before = ap.copy()
    summarize({"ap": ap}, [0, 1, 2], {"ap": ap})
    assert forgetting(step_means(ap, [0, 1, 2])) <= forgetting_clamped(step_means(ap, [0, 1, 2]))
    np.testing.assert_array_equal(ap, before)


@pytest.mark.parametrize(
    ("ap", "class_step", "joint", "message"),
    [
        ({"ap50": lower([[0.5]])}, [0], None, "`ap` among them"),
        ({"ap": lower([[0.5]]), "ap60": lower([[0.5]])}, [0], None, "kinds must be of ap, ap50"),
        ({"ap": lower([[0.5]])}, [0, 1], None, r"must be \(1 steps, 2 classes\), but got \(1, 1\)"),
        ({"ap": lower([[0.5], [0.3, 0.4]])}, [0, 1], {"ap": lower([[0.5], [0.3, 0.4]])[:1]}, "joint"),
        ({"ap": lower([[0.5], [0.3, 0.4]])}, [0, 0], None, "`1 <= rows <= steps` must hold, but got rows=2"),
    ],
)
def test_kinds_and_shapes_must_fit(ap: Any, class_step: list[int], joint: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        summarize(ap, class_step, joint)
