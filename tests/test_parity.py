"""The command that runs oracle files, on some made here and on those in the folder that PALIMPSEST_PARITY names."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.parity import checkers
from tests.parity.__main__ import main
from tests.parity.comparison import EXACT, FIGURES, GRADIENT, Comparison, Oracle
from trainables.metrics import summarize

FOLDER = os.environ.get("PALIMPSEST_PARITY", "")


@pytest.mark.skipif(not FOLDER, reason="PALIMPSEST_PARITY names no folder of oracle files")
def test_every_oracle_file_passes_or_is_not_built_yet(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(Path(FOLDER))
    *verdicts, count = lines(capsys)
    assert status == 0, verdicts
    assert len(verdicts) == len(list(Path(FOLDER).glob("*.npz"))) > 0
    assert " 0 failed, " in count
    assert all(" pass " in line for line in verdicts if line.startswith(tuple(checkers.CHECKERS)))


@pytest.fixture
def chain() -> dict[str, np.ndarray]:
    ap = np.array([[0.5, np.nan], [0.3, 0.4]])
    last = summarize({"ap": ap}, [0, 1])[-1]
    return {"ap": ap, "joint_ap": ap, "class_step": np.array([0, 1]), "exp_bwt": np.array(last["bwt"])}


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_a_file_passes_fails_or_is_not_built(
    tmp_path: Path, chain: dict[str, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "cl_metrics_good.npz", allow_pickle=False, **chain)
    np.savez(
        tmp_path / "cl_metrics_single_edge.npz", allow_pickle=False, **chain | {"exp_bwt": chain["exp_bwt"] + 1e-9}
    )
    np.savez(tmp_path / "unheard_of_a.npz", allow_pickle=False, exp_loss=np.zeros(3))
    assert main(tmp_path) == 1
    good, bad, unbuilt, count = lines(capsys)
    assert good.split()[:2] == ["cl_metrics_good", "pass"]
    assert "1.0e-12 allowed" in good
    assert bad.split()[:2] == ["cl_metrics_single_edge", "fail"]
    assert "exp_bwt differs by 1.0e-09" in bad
    assert unbuilt.endswith("not built yet")
    assert count == "1 passed, 1 failed, 1 not built"


def test_an_expected_array_nobody_looks_at_is_a_failure(
    tmp_path: Path, chain: dict[str, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "cl_metrics_a.npz", allow_pickle=False, **chain, exp_unheard_of=np.zeros(3))
    assert main(tmp_path) == 1
    assert "not compared: exp_unheard_of" in lines(capsys)[0]


def test_an_error_is_a_failure_with_its_message(
    tmp_path: Path, chain: dict[str, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cl_metrics_torn.npz").write_bytes(b"PK torn")
    np.savez(tmp_path / "cl_metrics_shape.npz", allow_pickle=False, **chain | {"class_step": np.array([0, 1, 2])})
    assert main(tmp_path) == 1
    shape, torn, count = lines(capsys)
    assert "ValueError: ap['ap'] must be" in shape
    assert " fail " in torn
    assert count == "0 passed, 2 failed, 0 not built"


def test_a_folder_without_oracle_files_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(tmp_path) == 2
    assert main(tmp_path / "missing") == 2
    assert capsys.readouterr().err.splitlines() == [
        f"{tmp_path} holds no oracle file (*.npz)",
        f"{tmp_path / 'missing'} is not a folder",
    ]


@pytest.mark.parametrize(
    ("got", "problem"),
    [
        ([1.0, np.nan, np.inf], ""),
        ([1.0 + 9e-13, np.nan, np.inf], ""),
        ([1.0 + 3e-12, np.nan, np.inf], "differs by 3.0e-12, 1.0e-12 allowed (1 of 3 values)"),
        ([1.0, 0.0, np.inf], "differs by inf, 1.0e-12 allowed (1 of 3 values)"),
        ([1.0, np.nan, 2.0], "differs by inf, 1.0e-12 allowed (1 of 3 values)"),
        ([1.0, np.nan], "has shape (2,) instead of (3,)"),
    ],
)
def test_values_and_shapes_must_agree(got: list[float], problem: str) -> None:
    comparison = Comparison({"exp_x": np.array([1.0, np.nan, np.inf])})
    comparison.compare("exp_x", got, FIGURES)
    assert comparison.pairs[0].problem == problem


def test_tolerances_are_absolute_relative_or_none() -> None:
    oracle: Oracle = {"exp_grad": np.array([0.0, 100.0]), "exp_index": np.array([3, 4]), "exp_none": np.zeros((0, 4))}
    comparison = Comparison(oracle)
    comparison.compare("exp_grad", [9e-8, 100.009], GRADIENT)
    comparison.compare("exp_index", [3, 4], EXACT)
    comparison.compare("exp_none", np.zeros((0, 4)), EXACT)
    assert comparison.problems == []
    comparison.compare("exp_index", [3, 5], EXACT)
    assert len(comparison.problems) == 1


def test_an_array_is_left_out_only_with_a_reason() -> None:
    comparison = Comparison({"exp_x": np.zeros(1), "exp_y": np.zeros(1), "orig_z": np.zeros(1)})
    assert comparison.unlooked == ["exp_x", "exp_y"]
    comparison.ignore("exp_x", reason="the original divides by zero")
    with pytest.raises(ValueError, match="without a reason"):
        comparison.ignore("exp_y", reason="")
    assert comparison.unlooked == ["exp_y"]
