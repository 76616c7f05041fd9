"""Files of a sweep that are cut, empty or flipped: refused in a line that names the file, or made good; never a fresh
start, never a traceback."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.smoke.workspace import Workspace

pytestmark = pytest.mark.chaos

FILES = (
    "spec.json", "optuna.jsonl", "records.jsonl", "records.position", "tune/tuner.pkl", "tune/experiment_state-*.json",
    "tune/search_gen_state-*.json", "tune/searcher-state-*.pkl", "snapshot.tar",
)  # fmt: skip
FAULTS: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "flipped": lambda content: (
        content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 255]) + content[len(content) // 2 + 1 :]
    ),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("finished"))
    workspace.run("run", str(workspace.write_spec("small", at_once=1)))
    return workspace


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("file", FILES)
def test_a_broken_file_is_refused_or_made_good(finished: Workspace, tmp_path: Path, file: str, fault: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished.folder, folder)
    workspace = Workspace(folder)
    (path,) = (folder / "runs/sweeps/small").glob(file)
    path.write_bytes(FAULTS[fault](path.read_bytes()))
    with workspace.running("run", str(folder / "small.yaml"), "--resume") as process:
        printed, _ = process.communicate(timeout=300)
    assert "Traceback" not in printed, printed
    if process.returncode:
        assert path.name in printed or path.parent.name in printed
    else:
        assert workspace.figures("small") == finished.figures("small")
