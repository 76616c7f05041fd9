"""Exporting a checkpoint and timing a detector, from the command line."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from sweeps.cli import main
from sweeps.spec import CONFIGS
from tests.trainables.batches import tiny
from trainables.catalog import DETECTORS
from trainables.detectors.growth import build_detector
from trainables.export import load_exported
from trainables.files import write_json

CLASSES = ["one", "two", "three"]
META = {"detector": "gfl_r18_tiny", "classes": CLASSES}


def run(*arguments: object) -> tuple[int, str]:
    found = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return found.exit_code, found.output


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = tiny(3).state_dict()
    return found


def checkpoints(folder: Path, weights: dict[str, torch.Tensor]) -> dict[str, Path]:
    """The same student in every form that is understood."""
    teacher = {f"ori_model.{name}": value for name, value in weights.items()}
    both = {f"student.{name}": value for name, value in weights.items()} | {
        f"teacher.{name}": value for name, value in weights.items()
    }
    contents: dict[str, Any] = {
        "bare": {"state_dict": weights, "meta": META},
        "released": {"state_dict": weights | teacher, "meta": META, "optimizer": {"momentum": torch.zeros(100_000)}},
        "wrapped": {"state_dict": both, "meta": META},
    }
    paths = {name: folder / f"{name}.pth" for name in contents}
    for name, content in contents.items():
        torch.save(content, paths[name])
    entry = folder / "steps" / "0123"
    entry.mkdir(parents=True)
    torch.save(weights, entry / "weights.pt")
    write_json(entry / "identity.json", {"detector": META["detector"], "classes": [CLASSES[:2], CLASSES[2:]]})
    return paths | {"stored": entry / "weights.pt"}


@pytest.mark.parametrize("form", ["bare", "released", "wrapped", "stored"])
def test_the_student_alone_is_exported(tmp_path: Path, weights: dict[str, torch.Tensor], form: str) -> None:
    source = checkpoints(tmp_path, weights)[form]
    status, printed = run("export", source, tmp_path / "out")
    assert status == 0, printed
    (path,) = (tmp_path / "out").iterdir()
    assert f"{source}: {source.stat().st_size / 1e6:.2f} MB" in printed
    assert f"{path}: {path.stat().st_size / 1e6:.2f} MB" in printed
    saved = torch.load(path, weights_only=True)
    assert set(saved) == {"state_dict", "meta"}
    detector = load_exported(path)
    assert detector.dataset_meta["classes"] == tuple(CLASSES)
    assert all(torch.equal(value, weights[name]) for name, value in detector.state_dict().items())


def test_what_is_no_checkpoint_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    text, odd, alone = tmp_path / "text.pth", tmp_path / "odd.pth", tmp_path / "alone.pth"
    text.write_text("hello")
    torch.save([1, 2], odd)
    torch.save({"weight": torch.zeros(1)}, alone)
    for path, problem in (
        (text, "must be a checkpoint"),
        (odd, "must be a checkpoint"),
        (alone, "--detector must: gfl_r18_tiny, "),
    ):
        status, printed = run("export", path, tmp_path / "out")
        assert status == 1
        assert str(path) in printed
        assert problem in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("meta", [{"dataset_meta": {"classes": CLASSES}}, {"CLASSES": CLASSES, "epoch": 12}])
def test_a_published_checkpoint_needs_its_detector_named(
    tmp_path: Path, weights: dict[str, torch.Tensor], meta: dict[str, Any]
) -> None:
    source = tmp_path / "published.pth"
    torch.save({"state_dict": weights, "meta": meta}, source)
    status, printed = run("export", source, tmp_path / "out", "--detector", META["detector"])
    assert status == 0, printed
    (path,) = (tmp_path / "out").iterdir()
    assert load_exported(path).dataset_meta == {"detector": META["detector"], "classes": tuple(CLASSES)}
    for arguments, problem in (((), "--detector must"), (("--detector", "gfl"), "holds no detector 'gfl'; available")):
        status, printed = run("export", source, tmp_path / "other", *arguments)
        assert status == 1
        assert problem in printed


def test_weights_of_another_detector_are_refused(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    wrong = tmp_path / "wrong.pth"
    torch.save({"state_dict": weights, "meta": META | {"classes": ["one"]}}, wrong)
    status, printed = run("export", wrong, tmp_path / "out")
    assert status == 1
    assert "gfl_cls" in printed


def test_speed_is_told_by_batch(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    run("export", checkpoints(tmp_path, weights)["bare"], tmp_path / "out")
    (path,) = (tmp_path / "out").iterdir()
    status, printed = run("fps", path, "--batch", 1, "--batch", 3, "--batches", 4, "--shape", 64, 96)
    assert status == 0, printed
    assert "64 x 96 px" in printed
    *_, one, three = (line.split() for line in printed.splitlines())
    assert [row[0] for row in (one, three)] == ["1", "3"]
    assert all(float(cell) > 0 for row in (one, three) for cell in (row[1], row[3]))


def alone(program: str, *arguments: object) -> tuple[str, str]:
    """What a program prints, and its errors, in a process in which no package is imported yet."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return found.stdout, found.stderr


def test_what_packages_announce_is_not_printed(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    verb = "from sweeps.cli import main; main()"
    printed, errors = alone(verb, "fps", CONFIGS / "ckd_digits.yaml", "--batches", 4, "--shape", 64, 64)
    assert (printed.partition(",")[0], errors) == ("yoloy_tiny", "")
    run("export", checkpoints(tmp_path, weights)["bare"], tmp_path / "out")
    (path,) = (tmp_path / "out").iterdir()
    load = "import sys; from trainables.pyfunc import _load_pyfunc; _load_pyfunc(sys.argv[1])"
    assert alone(load, path) == ("", "")


def test_only_an_exported_checkpoint_is_timed(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    status, printed = run("fps", checkpoints(tmp_path, weights)["stored"])
    assert status == 1
    assert "sweeps export" in printed


def test_nanodets_own_checkpoints_become_ours(tmp_path: Path) -> None:
    detector = tiny(3, detector="nanodet_tiny")
    theirs = {"neck.": "fpn.", "bbox_head.integral.": "head.distribution_project.", "bbox_head.": "head."}

    def named(name: str) -> str:
        start = next((start for start in theirs if name.startswith(start)), "")
        return theirs.get(start, "") + name.removeprefix(start)

    averaged = {f"avg_model.{named(name)}": value for name, value in detector.state_dict().items()}
    live = {f"model.{named(name)}": torch.zeros_like(value) for name, value in detector.state_dict().items()}
    beside = {"model.aux_fpn.x": torch.zeros(1), "avg_model.aux_head.x": torch.zeros(1)}
    file, names = tmp_path / "model_best.ckpt", tmp_path / "names.txt"
    torch.save({"state_dict": live | averaged | beside, "epoch": 300}, file)
    names.write_text("cat\ndog\n\nbird\n")
    arguments = ["export", file, tmp_path / "out", "--detector", "nanodet_tiny"]
    status, printed = run(*arguments)
    assert (status, "or --classes must say them" in printed) == (1, True)
    status, printed = run(*arguments, "--classes", names)
    assert status == 0, printed
    (path,) = (tmp_path / "out").iterdir()
    exported = load_exported(path)
    assert exported.dataset_meta["classes"] == ("cat", "dog", "bird")
    found = exported.state_dict()
    assert all(torch.equal(found[name], value) for name, value in detector.state_dict().items())
    backbone = build_detector("nanodet_tiny", 3, DETECTORS["nanodet_tiny"].recipe, str(file)).backbone.state_dict()
    assert all(torch.equal(backbone[name], value) for name, value in detector.backbone.state_dict().items())


class Command:
    """What a pickle may run when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_nothing_in_a_checkpoint_is_run(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    trace, file = tmp_path / "trace", tmp_path / "hostile.pth"
    hostile = {
        "must be a checkpoint": {"state_dict": weights, "meta": META, "more": Command(trace)},
        "`meta.nms` must be": {"state_dict": weights, "meta": META | {"nms": {"type": f"open({str(trace)!r}, 'w')"}}},
    }
    for problem, content in hostile.items():
        torch.save(content, file)
        status, printed = run("fps", file, "--batches", 4)
        assert (status, trace.exists()) == (1, False)
        assert problem in printed


def test_a_checkpoint_that_grows_when_it_is_read_is_refused(tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain.pth", tmp_path / "packed.pth"
    torch.save({"state_dict": {"weight": torch.zeros(1 << 20)}}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    status, printed = run("export", packed, tmp_path / "out")
    assert status == 1
    assert "must not be compressed" in printed
