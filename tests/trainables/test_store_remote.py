"""A store at a URL: hosts, each with a cache of its own, share what one of them built."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pytest

from trainables import store_lease
from trainables.errors import SpecError
from trainables.files import digest
from trainables.store import Store
from trainables.store_contents import entries

IDENTITY = {"detector": "gfl_r18_tiny", "seed": 0}
NAME = f"steps/{digest(IDENTITY)}"
PROCESSES = multiprocessing.get_context("spawn")
PATIENCE = 60  # s, far above what a slow machine needs
LEASE_S = 1.5

Hosts = Callable[[str], Store]


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"file://{tmp_path}/bucket" if request.param == "file" else f"memory://{uuid4().hex}/bucket"


@pytest.fixture
def hosts(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    """The store as a host sees it: the URL is one, the cache its own."""
    monkeypatch.setattr(store_lease, "LEASE_S", LEASE_S)

    def host(name: str) -> Store:
        monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / name))
        return Store(url)

    return host


def file_system(url: str) -> tuple[Any, str]:
    return fsspec.url_to_fs(url, **({"auto_mkdir": True} if url.startswith("file:") else {}))


def objects(url: str) -> dict[str, bytes]:
    """What lies at the URL, by path below it."""
    filesystem, root = file_system(url)
    paths = filesystem.find(root)
    return {path.removeprefix(f"{root}/"): filesystem.cat_file(path) for path in paths}


def overwrite(url: str, name: str, content: bytes) -> None:
    filesystem, root = file_system(url)
    filesystem.pipe_file(f"{root}/{name}", content)


def write_table(folder: Path) -> None:
    (folder / "tables").mkdir()
    (folder / "tables" / "responses.bin").write_bytes(os.urandom(1000))


def refuse(folder: Path) -> None:
    raise AssertionError("must not be built")


def table(entry: Path | None) -> bytes:
    assert entry is not None
    return (entry / "tables" / "responses.bin").read_bytes()


def test_another_host_gets_the_same_bytes_and_builds_nothing(hosts: Hosts, tmp_path: Path) -> None:
    built = hosts("one").get("steps", IDENTITY, write_table)
    fetched = hosts("two").get("steps", IDENTITY, refuse)
    assert built.is_relative_to(tmp_path / "one")
    assert fetched.is_relative_to(tmp_path / "two")
    for name in ("identity.json", "tables/responses.bin"):
        assert (built / name).read_bytes() == (fetched / name).read_bytes()
    assert table(hosts("three").find("steps", IDENTITY)) == table(built)


def test_what_is_cached_is_used_without_the_url(hosts: Hosts, url: str) -> None:
    built = hosts("one").get("steps", IDENTITY, write_table)
    filesystem, root = file_system(url)
    filesystem.rm(root, recursive=True)
    assert hosts("one").get("steps", IDENTITY, refuse) == built


def test_find_builds_nothing_at_a_url(hosts: Hosts, url: str) -> None:
    assert hosts("one").find("steps", IDENTITY) is None
    assert objects(url) == {}


def test_without_its_manifest_there_is_no_entry(hosts: Hosts, url: str) -> None:
    first = table(hosts("one").get("steps", IDENTITY, write_table))
    filesystem, root = file_system(url)
    filesystem.rm_file(f"{root}/{NAME}/manifest.json")
    assert hosts("two").find("steps", IDENTITY) is None
    assert table(hosts("two").get("steps", IDENTITY, write_table)) != first


def test_a_builder_that_raises_leaves_no_entry_and_no_lease(hosts: Hosts, url: str) -> None:
    def fail(folder: Path) -> None:
        write_table(folder)
        raise RuntimeError("no space left")

    with pytest.raises(RuntimeError, match="no space left"):
        hosts("one").get("steps", IDENTITY, fail)
    assert objects(url) == {}
    assert not hosts("one").path("steps", IDENTITY).exists()
    assert hosts("two").get("steps", IDENTITY, write_table).exists()


def a_byte_changed(url: str) -> None:
    (name,) = [name for name in objects(url) if name.endswith("responses.bin")]
    content = objects(url)[name]
    overwrite(url, name, bytes([content[0] ^ 1]) + content[1:])


def a_file_missing(url: str) -> None:
    filesystem, root = file_system(url)
    (name,) = [name for name in objects(url) if name.endswith("responses.bin")]
    filesystem.rm_file(f"{root}/{name}")


def the_manifest_torn(url: str) -> None:
    overwrite(url, f"{NAME}/manifest.json", objects(url)[f"{NAME}/manifest.json"][:40])


@pytest.mark.parametrize("damage", [a_byte_changed, a_file_missing, the_manifest_torn])
def test_a_damaged_entry_at_the_url_is_built_again_and_replaced(
    hosts: Hosts, url: str, damage: Callable[[str], None]
) -> None:
    built: list[bytes] = []

    def build(folder: Path) -> None:
        write_table(folder)
        built.append(table(folder))

    hosts("one").get("steps", IDENTITY, build)
    damage(url)
    assert hosts("two").find("steps", IDENTITY) is None
    assert table(hosts("two").get("steps", IDENTITY, build)) == built[1]
    assert table(hosts("three").get("steps", IDENTITY, refuse)) == built[1]


def test_a_damaged_entry_in_the_cache_is_fetched_again(hosts: Hosts) -> None:
    entry = hosts("one").get("steps", IDENTITY, write_table)
    before = table(entry)
    (entry / "tables" / "responses.bin").write_bytes(before[:500])
    assert table(hosts("one").get("steps", IDENTITY, refuse)) == before


@pytest.mark.parametrize("name", ["../../../outside", "tables/../../../outside", "{tmp_path}/outside"])
def test_a_manifest_cannot_write_outside_the_cache(hosts: Hosts, url: str, name: str, tmp_path: Path) -> None:
    hosts("one").get("steps", IDENTITY, write_table)
    manifest = json.loads(objects(url)[f"{NAME}/manifest.json"])
    manifest["files"][1]["name"] = name = name.format(tmp_path=tmp_path)
    overwrite(url, f"{NAME}/manifest.json", json.dumps(manifest).encode())
    overwrite(url, f"{NAME}/{manifest['build']}/{name}", b"outside")
    assert hosts("two").find("steps", IDENTITY) is None
    assert [path for path in tmp_path.rglob("outside") if "bucket" not in path.parts] == []


def test_the_state_of_an_unfinished_build_is_in_the_cache(hosts: Hosts, tmp_path: Path) -> None:
    store = hosts("one")
    partial = store.partial("steps", IDENTITY)
    assert partial.is_relative_to(tmp_path / "one")
    partial.mkdir(parents=True)
    store.get("steps", IDENTITY, write_table)
    assert not partial.exists()


def test_that_an_entry_is_in_use_is_told_to_the_url_once_a_day(hosts: Hosts, url: str) -> None:
    cached = hosts("one").get("steps", IDENTITY, write_table)
    used = f"{NAME}/used"
    hosts("one").get("steps", IDENTITY, refuse)
    assert used not in objects(url)
    os.utime(cached, (0, 0))
    hosts("one").get("steps", IDENTITY, refuse)
    overwrite(url, used, b"2026-01-01T00:00:00+00:00")
    hosts("one").get("steps", IDENTITY, refuse)
    assert objects(url)[used] == b"2026-01-01T00:00:00+00:00"
    before = time.time()
    hosts("two").get("steps", IDENTITY, refuse)
    (entry,) = entries(hosts("two"))
    assert entry.used >= before


def test_a_lease_that_nobody_renewed_is_taken_over_and_no_other(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_lease, "LEASE_S", LEASE_S)
    filesystem, root = file_system(url)
    lease = store_lease.Lease(filesystem, f"{root}/lease.json")

    def taken_at(seconds: float) -> bool:
        monkeypatch.setattr(store_lease.time, "monotonic", lambda: seconds)
        return lease.take()

    overwrite(url, "lease.json", b'{"owner": "another"}')
    assert [taken_at(0.0), taken_at(0.9 * LEASE_S)] == [False, False]
    overwrite(url, "lease.json", b'{"owner": "another", "time": "later"}')
    assert [taken_at(LEASE_S), taken_at(1.9 * LEASE_S), taken_at(2.0 * LEASE_S)] == [False, False, True]


def test_what_was_built_until_the_lease_is_ours_is_not_built_again(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = store_lease.Lease.take

    def late(lease: store_lease.Lease) -> bool:
        monkeypatch.setattr(store_lease.Lease, "take", take)
        hosts("two").get("steps", IDENTITY, write_table)
        return take(lease)

    one = hosts("one")
    monkeypatch.setattr(store_lease.Lease, "take", late)
    assert table(one.get("steps", IDENTITY, refuse)) == table(hosts("two").find("steps", IDENTITY))


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("nowhere://bucket", "Protocol not known"),
        ("memory://bucket/../other", "`..` must not be in its path"),
    ],
)
def test_a_url_that_cannot_be_a_store_is_refused(url: str, problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        Store(url)


def test_the_cache_is_in_the_users_folder_and_names_no_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("PALIMPSEST_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    one, two = Store("memory://user:secret@bucket"), Store("memory://user:secret@other/")
    assert one.root.parent == tmp_path / "palimpsest"
    assert one.root != two.root
    assert "secret" not in str(one.root)
    assert Store("memory://user:secret@bucket/").root == one.root


def build_slowly(url: str, cache: Path, log: Path, barrier: Barrier) -> None:
    def build(folder: Path) -> None:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(2.5 * LEASE_S)  # a living owner keeps its lease, however long it builds
        write_table(folder)

    os.environ["PALIMPSEST_CACHE"] = str(cache)
    store_lease.LEASE_S = LEASE_S
    barrier.wait(PATIENCE)
    Store(url).get("steps", IDENTITY, build)


def test_of_two_hosts_at_once_one_builds_and_the_other_waits(tmp_path: Path) -> None:
    url, log, barrier = f"file://{tmp_path}/bucket", tmp_path / "builds.log", PROCESSES.Barrier(2)
    both = [
        PROCESSES.Process(target=build_slowly, args=(url, tmp_path / name, log, barrier), daemon=True)
        for name in ("1", "2")
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(PATIENCE)
    assert [process.exitcode for process in both] == [0, 0]
    assert len(log.read_text().split()) == 1
    first, second = (path.read_bytes() for name in ("1", "2") for path in (tmp_path / name).rglob("responses.bin"))
    assert first == second
    left = sorted(name.rpartition("/")[2] for name in objects(url))
    assert left == ["identity.json", "manifest.json", "responses.bin", "used"]


def die_while_building(url: str, cache: Path, building: Event) -> None:
    def build(folder: Path) -> None:
        write_table(folder)
        building.set()
        os._exit(9)

    os.environ["PALIMPSEST_CACHE"] = str(cache)
    Store(url).get("steps", IDENTITY, build)


def test_a_dead_hosts_lease_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, building = f"file://{tmp_path}/bucket", PROCESSES.Event()
    owner: Any = PROCESSES.Process(target=die_while_building, args=(url, tmp_path / "1", building), daemon=True)
    owner.start()
    owner.join(PATIENCE)
    assert (building.is_set(), owner.exitcode) == (True, 9)
    assert list(objects(url)) == [f"{NAME}/lease.json"]
    monkeypatch.setattr(store_lease, "LEASE_S", LEASE_S)
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "2"))
    assert Store(url).get("steps", IDENTITY, write_table).exists()
    assert f"{NAME}/lease.json" not in objects(url)
