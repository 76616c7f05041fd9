"""The project's files as a whole: what they must not name, and what an installation must hold."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GENERATED = {"uv.lock"}
UNWANTED = {
    "a path of one machine": re.compile(r"(?<![\w/.~$}-])/(work|root|home|Users)/\w|\.\./(shared|[.]library)"),
    "a task nobody owns": re.compile(r"\b(TO[D]O|FIX[M]E)\b"),
    "a silenced lint": re.compile(r"#\s*no[q]a\b", re.IGNORECASE),
}


def project_files() -> list[Path]:
    """The files that git keeps, or would keep."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in names if name and name not in GENERATED and (ROOT / name).is_file()]


def text_of(path: Path) -> str:
    """The text of a file; nothing for one that is not text, such as a picture."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


@pytest.mark.parametrize("what", UNWANTED)
def test_no_file_holds_what_is_unwanted(what: str) -> None:
    texts = {path.relative_to(ROOT).as_posix(): text_of(path) for path in project_files()}
    assert {"pyproject.toml", "cluster.yaml", "trainables/errors.py", "tests/test_house.py"} <= set(texts)
    found = [
        f"{name}:{number}: {line.strip()}"
        for name, text in texts.items()
        for number, line in enumerate(text.splitlines(), start=1)
        if UNWANTED[what].search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("a path of one machine", "STORE = '/" + "home/me/store'"),
        ("a path of one machine", "cp .." + "/shared/oracles ."),
        ("a task nobody owns", "# TO" + "DO later"),
        ("a silenced lint", "import x  # no" + "qa: F401"),
    ],
)
def test_the_scan_would_find(what: str, line: str) -> None:
    assert UNWANTED[what].search(line)


def test_shipped_sweep_files_are_package_data() -> None:
    targets = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    configs = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("sweeps/configs/*.yaml")]
    assert configs
    assert "sweeps" in targets["wheel"]["packages"]
    # hatchling leaves out what git ignores, so a name in .gitignore would drop a sweep file in silence.
    ignored = subprocess.run(["git", "check-ignore", *configs], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ignored.stdout == ""


def test_mmcvs_compiled_operations_work() -> None:
    import torch
    from mmcv.ops import nms

    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 0.0, 11.0, 10.0], [20.0, 20.0, 30.0, 30.0]])
    kept, indices = nms(boxes, torch.tensor([0.9, 0.8, 0.7]), iou_threshold=0.5)
    assert indices.tolist() == [0, 2]
    assert kept[:, 4].tolist() == pytest.approx([0.9, 0.7])
