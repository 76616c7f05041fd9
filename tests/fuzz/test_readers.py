"""Whatever a file holds, its reader reads it or refuses it by name, and writes nowhere but into its workspace.

A hundred inputs for each reader by default, ten thousand with `-m long`; the same ones each time.
"""

from __future__ import annotations

import gc
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sweeps.spec import load_specs
from tests.fuzz.inputs import NUMBERS, PATHS, TEXTS, broken, changed, odd, repacked
from tests.sweeps.sweep_files import GOOD
from tests.trainables.batches import tiny
from tests.trainables.datasets.files import pets, voc_xml, voc_year, write_image
from trainables.datasets import DataConfig, prepare
from trainables.errors import CheckpointError, DataError, PalimpsestError, SpecError
from trainables.export import export_student, load_exported

RICH = GOOD | {
    "name": "rich",
    "scenario": {"named": "digits/5+5", "order": "shuffle:3"},
    "data": {"kind": "digits", "sizes": [4, 2, 2]},
    "method": ["erd", "finetune"],
    "preset": {"erd": "fixed"},
    "search": {"erd/lambda_cls": [0.1, 1.0], "alpha_cls": {"low": 1.0, "high": 2.0, "step": 0.5}},
    "fixed": {"lambda_box": 1.0},
    "training": {"base_epochs": 1, "epochs": 2, "ema_momentum": 0.1},
    "test_cfg": {"nms": {"type": "voting_cluster_diounms", "beta": 0.5}},
    "objective": [{"metric": "ap_all", "over": [1.0]}],
    "constraints": ["forgetting <= 0.1"],
    "budget": {"hours": 1.5},
    "promotion": {"seeds": [0, 1]},
    "storage": "runs",
    "store": "s3://bucket/store",
    "study": "postgresql://me@host/optuna",
    "tracking_uri": "http://127.0.0.1:5000",
}
GRID = {key: value for key, value in GOOD.items() if key not in ("scenario", "search")} | {
    "scenarios": ["digits/5+5", "digits/4+3+3"],
    "sampler": "grid",
    "search": {"alpha_cls": {"values": [1, 2]}},
}
SPECS = [GOOD, RICH, GRID]


@pytest.fixture
def around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader works: what is written here, but for its own folders, is written outside of them."""
    folder = tmp_path / "around" / "here"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def seen(path: Path) -> dict[Path, tuple[int, int]]:
    """Every file around the working folder but `path` and those in the folder `work`, with its size and time."""
    files = (
        one for one in Path.cwd().parents[1].rglob("*") if one != path and not one.is_relative_to(Path.cwd() / "work")
    )
    return {one: (one.lstat().st_size, one.lstat().st_mtime_ns) for one in files if not one.is_dir()}


def hunt(
    inputs: st.SearchStrategy[bytes],
    number: int,
    path: Path,
    read: Callable[[], Any],
    error: type[PalimpsestError],
    *subjects: str,
) -> None:
    """Let `read` have so many files `path`: it may only raise `error`, which names the file or one of `subjects`."""
    before = seen(path)

    @settings(max_examples=number, derandomize=True, deadline=None, database=None, suppress_health_check=HealthCheck)
    @given(inputs)
    def holds(content: bytes) -> None:
        path.write_bytes(content)
        told = path.name
        try:
            read()
        except error as refused:
            told = str(refused)
        assert any(name in told for name in (path.name, *subjects))
        assert seen(path) == before
        shutil.rmtree("work", ignore_errors=True)

    holds()


many = pytest.mark.parametrize("number", [100, pytest.param(10_000, marks=pytest.mark.long)])


def as_yaml(content: Any) -> bytes:
    """The YAML of a sweep file."""
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode(errors="surrogatepass")


@many
def test_any_sweep_file_is_read_or_refused(around: Path, number: int) -> None:
    path = around / "mine.yaml"

    def read() -> list[Any]:
        return [(spec.identity, spec.protocol, spec.study_url, spec.first_points()) for spec in load_specs(path)]

    inputs = changed(SPECS).map(as_yaml) | broken([as_yaml(spec) for spec in SPECS])
    hunt(inputs, number, path, read, SpecError)


@many
def test_any_annotations_are_read_or_refused(around: Path, number: int) -> None:
    for image in pets()["images"]:
        write_image(around / "images" / image["file_name"])
    (around / "test.json").write_text(json.dumps(pets()))
    paths = {"train_annotations": "train.json", "test_annotations": "test.json"}
    config = DataConfig(kind="custom", root=str(around), train_images="images", test_images="images", **paths)
    inputs = changed([pets()]).map(lambda coco: json.dumps(coco).encode()) | broken([json.dumps(pets()).encode()])
    hunt(inputs, number, around / "train.json", lambda: prepare(config, Path("work")), DataError, "num_tune")


def xml_files() -> st.SearchStrategy[bytes]:
    """Annotations of VOC."""
    text = st.sampled_from(["dog", "1", "20.5", *TEXTS, *PATHS, *map(str, NUMBERS[:5])]) | st.text(max_size=8)
    box = st.tuples(text, text, text, text)
    objects = st.lists(st.tuples(text, box, text), max_size=3)
    right = voc_xml([("dog", (1, 1, 20, 20), 0)]).encode()
    return objects.map(lambda found: voc_xml(found).encode(errors="surrogatepass")) | broken([right])


def lists() -> st.SearchStrategy[bytes]:
    """Lists of VOC."""
    stem = st.sampled_from(["000001", "000002", *PATHS[:-1], *TEXTS]) | st.text(max_size=8)
    right = st.lists(stem, max_size=4).map(lambda stems: "\n".join(stems).encode(errors="surrogatepass"))
    return right | broken([b"000001\n000002\n"])


@many
@pytest.mark.parametrize(
    ("file", "inputs"), [("Annotations/000001.xml", xml_files()), ("ImageSets/Main/trainval.txt", lists())]
)
def test_any_voc_file_is_read_or_refused(
    around: Path, number: int, file: str, inputs: st.SearchStrategy[bytes]
) -> None:
    voc_year(around / "devkit", "VOC2007", {"trainval": ["000001", "000002"], "test": ["000900"]})
    config = DataConfig(kind="voc", root="devkit")
    path = around / "devkit" / "VOC2007" / file
    hunt(inputs, number, path, lambda: prepare(config, Path("work")), DataError, "devkit", "num_tune")


class Command:
    """What a pickle may run when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("trace"),)


def saved(content: Any, zipped: bool = True) -> bytes:
    """What torch writes, or wrote before it wrote archives."""
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def checkpoints() -> st.SearchStrategy[bytes]:
    """Exported checkpoints, of few tensors."""
    tensors = {name: value.clone() for name, value in list(tiny(3).state_dict().items())[:3]}
    meta = {"detector": "gfl_r18_tiny", "classes": ["a", "b", "c"], "nms": {"type": "nms", "iou_threshold": 0.5}}
    valid = [{"state_dict": tensors, "meta": meta}, {"state_dict": {}, "meta": {"detector": "x", "classes": ["a"]}}]
    values: list[Any] = [torch.zeros(2, 2).to_sparse(), torch.zeros(1, dtype=torch.complex64), Command(), {1: 2}]
    values += [torch.zeros(2, device="meta"), torch.zeros(1).expand(10**9), torch.tensor(float("nan"))]
    small = [saved(valid[1]), saved(valid[1], zipped=False), saved(valid[0])]
    whole = changed(valid, odd | st.sampled_from(values)).map(saved)
    return st.one_of(whole, broken(small), broken(small), repacked(small[0]), repacked(small[2]))


@many
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_any_checkpoint_is_read_or_refused(around: Path, number: int) -> None:
    path = around / "mine.pth"

    def read() -> None:
        if path.stat().st_size % 2:
            load_exported(path)
        else:
            export_student(path, Path("work"))

    hunt(checkpoints(), number, path, read, CheckpointError)


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    """Each detector that is built freezes what is there, for good."""
    yield
    gc.unfreeze()
