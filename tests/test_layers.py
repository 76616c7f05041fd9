"""Imports run one way, heavy packages have one door each, and what only describes things loads none of them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("search_spaces", "trainables", "sweeps")
HEAVY = ("mlflow", "mmcv", "mmdet", "mmengine", "optuna", "ray", "torch")
LIGHT = (
    "search_spaces", "sweeps", "sweeps.cli", "sweeps.spec", "trainables", "trainables.catalog", "trainables.config",
    "trainables.datasets", "trainables.errors", "trainables.files", "trainables.recipes", "trainables.records",
    "trainables.scenarios", "trainables.store", "trainables.table_plans",
)  # fmt: skip


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """The run of import-linter on the packages in `folder`."""
    call = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    return subprocess.run([sys.executable, "-c", call], cwd=folder, capture_output=True, text=True, check=False)


def test_contracts_are_kept() -> None:
    linted = lint_imports(ROOT)
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("search_spaces/broken.py", "import yaml", "search_spaces loads in milliseconds"),
        ("search_spaces/broken.py", "import trainables", "search_spaces <- trainables <- sweeps"),
        ("trainables/broken.py", "import sweeps", "search_spaces <- trainables <- sweeps"),
        ("trainables/broken.py", "import optuna", "a trial knows nothing of the search or of its records"),
        ("trainables/broken.py", "from ray import tune", "ray enters a trial through two doors alone"),
        ("sweeps/broken.py", "import torch", "a sweep knows nothing of tensors"),
    ],
)
def test_a_broken_contract_is_found(tmp_path: Path, module: str, line: str, contract: str) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / module).write_text(f"{line}\n", encoding="utf-8")
    linted = lint_imports(tmp_path)
    assert linted.returncode == 1, linted.stdout + linted.stderr
    assert f"{contract} BROKEN" in linted.stdout


@pytest.mark.parametrize("module", LIGHT)
def test_loads_nothing_heavy(module: str) -> None:
    call = f"import json, sys, {module}; print(json.dumps(sorted(set(sys.modules) & set({HEAVY!r}))))"
    loaded = subprocess.run([sys.executable, "-c", call], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert json.loads(loaded) == []
