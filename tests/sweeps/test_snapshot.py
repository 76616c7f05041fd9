"""What a search goes on from when Tune's newest snapshot is torn."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.snapshot import keep_snapshot, restorable, sealed
from trainables.errors import CheckpointError

FIRST, LATER = "2026-01-01_10-00-00", "2026-01-02_10-00-00"


def snapshot(folder: Path, content: str, stamp: str = FIRST) -> dict[str, Path]:
    """The files of one, as Tune and our search write them."""
    experiment = folder / "tune"
    experiment.mkdir(exist_ok=True)
    (experiment / "tuner.pkl").touch()
    files = {
        "state": experiment / f"experiment_state-{stamp}.json",
        "generator": experiment / f"search_gen_state-{stamp}.json",
        "searcher": experiment / f"searcher-state-{stamp}.pkl",
    }
    files["state"].write_text(f'{{"trial_data": ["{content}"]}}')
    files["generator"].write_bytes(b"generator " + content.encode())
    files["searcher"].write_bytes(sealed(content.encode()))
    return files


def test_without_a_state_it_is_a_fresh_start(tmp_path: Path) -> None:
    assert not restorable(tmp_path)
    (tmp_path / "tune").mkdir()
    (tmp_path / "tune" / "tuner.pkl").touch()
    assert not restorable(tmp_path)  # killed before the first state was written


def test_a_whole_one_is_gone_on_from(tmp_path: Path) -> None:
    snapshot(tmp_path, "one")
    keep_snapshot(tmp_path)
    files = snapshot(tmp_path, "two")
    assert restorable(tmp_path)
    assert "two" in files["state"].read_text()


@pytest.mark.parametrize(
    ("part", "torn"),
    [
        ("state", b""), ("state", b'{"trial_data": ['), ("state", b"\x00" * 64), ("generator", b""),
        ("searcher", b""), ("searcher", b"\x00" * 64),
    ],
)  # fmt: skip
def test_a_torn_one_gives_way_to_the_one_before(tmp_path: Path, part: str, torn: bytes) -> None:
    snapshot(tmp_path, "one")
    keep_snapshot(tmp_path)
    files = snapshot(tmp_path, "two")
    files[part].write_bytes(torn)
    assert restorable(tmp_path)
    assert "one" in files["state"].read_text()
    assert files["generator"].read_bytes() == b"generator one"
    assert files["searcher"].read_bytes() == sealed(b"one")


def test_what_a_killed_driver_began_to_write_gives_way_to_the_one_before(tmp_path: Path) -> None:
    snapshot(tmp_path, "one")
    keep_snapshot(tmp_path)
    files = snapshot(tmp_path, "two", LATER)
    files["searcher"].unlink()
    assert restorable(tmp_path)
    assert not files["state"].exists()
    assert not files["generator"].exists()


def test_a_torn_one_is_never_kept(tmp_path: Path) -> None:
    files = snapshot(tmp_path, "one")
    keep_snapshot(tmp_path)
    files["state"].write_text("{")
    keep_snapshot(tmp_path)
    assert restorable(tmp_path)
    assert "one" in files["state"].read_text()


def test_a_torn_one_alone_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    files = snapshot(tmp_path, "one")
    files["state"].write_text("{")
    with pytest.raises(CheckpointError, match=r"experiment_state.* is torn .*; delete the sweep's folder `tune`"):
        restorable(tmp_path)


def test_a_population_has_a_generator_of_tunes_own(tmp_path: Path) -> None:
    files = snapshot(tmp_path, "one")
    for part in ("generator", "searcher"):
        files[part].unlink()
    (tmp_path / "tune" / f"basic-variant-state-{FIRST}.json").write_bytes(b"state")
    assert restorable(tmp_path)
    files["state"].write_text("{")
    with pytest.raises(CheckpointError, match="is torn"):
        restorable(tmp_path)
