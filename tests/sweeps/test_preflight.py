"""What a node is asked before anything is spent, and how many trials a cluster holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sweeps.cluster import HEAD, Nodes, connect_ray, machines
from sweeps.preflight import check_node, versions_here
from trainables.errors import PalimpsestError


@pytest.mark.parametrize(
    ("there", "amount", "need", "expected"),
    [
        ({"CPU": 8.0, "GPU": 4.0}, 1, {"CPU": 1.0, "GPU": 1.0}, 4),
        ({"CPU": 8.0, "GPU": 4.0}, 2, {"CPU": 1.0, "GPU": 0.5}, 16),
        ({"CPU": 8.0, "GPU": 3.0}, 5, {"CPU": 1.0, "GPU": 2.0}, 5),  # of a trial's two devices none is on another node
        ({"CPU": 2.0, "GPU": 4.0}, 1, {"CPU": 4.0, "GPU": 1.0}, 0),
        ({"CPU": 4.0}, 3, {"CPU": 2.0, "GPU": 0.0}, 6),
        ({"CPU": 4.0}, 3, {"CPU": 2.0, "GPU": 1.0}, 0),
        ({"GPU": 1.0, "CPU": 10.0}, 1, {"CPU": 1.0, "GPU": 0.1}, 10),
    ],
)
def test_a_trial_has_its_resources_on_one_node(
    there: dict[str, float], amount: int, need: dict[str, float], expected: int
) -> None:
    assert replace(Nodes(there, 1), amount=amount).fit(need) == expected


def test_machines_that_are_still_starting_count() -> None:
    head, worker = Nodes({HEAD: 1.0, "CPU": 2.0}, 1, ("a",)), Nodes({"CPU": 8.0}, 1, ("b",))
    need = {"CPU": 2.0}
    assert [node.fit(need) for node in machines([head], 3)] == [1, 3]
    assert [node.fit(need) for node in machines([worker, head], 3)] == [1, 12]


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    path = tmp_path / "preflight"
    path.write_text("token")
    return path


def test_a_node_like_the_drivers_has_nothing_to_say(marker: Path, tmp_path: Path) -> None:
    check_node(marker, "token", {"data.root": tmp_path}, versions_here(), "driver")


def test_everything_wrong_with_a_node_is_told_at_once(marker: Path, tmp_path: Path) -> None:
    versions = versions_here() | {"torch": "1.4.0"}
    with pytest.raises(PalimpsestError) as raised:
        check_node(marker, "another", {"data.root": tmp_path / "coco"}, versions, "driver")
    storage, data, version = raised.value.problems
    assert storage.startswith(f"must share the sweep's storage with driver, but does not see {tmp_path} as it is there")
    assert data == f"{tmp_path / 'coco'} (data.root) must be there, as on driver"
    assert version == f"torch must be 1.4.0 as on driver, but is {versions_here()['torch']}"


def test_a_storage_that_is_not_there_is_not_shared(tmp_path: Path) -> None:
    with pytest.raises(PalimpsestError, match="does not see"):
        check_node(tmp_path / "sweeps" / "preflight", "token", {}, {}, "driver")


def test_a_cluster_is_joined_only_by_who_says_how_it_knows_its_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.delenv("RAY_AUTH_MODE")
    with pytest.raises(
        PalimpsestError, match=r"RAY_AUTH_MODE must be what the nodes of .* have, one of token, disabled"
    ):
        connect_ray()
