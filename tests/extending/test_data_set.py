"""The data set of the page: checked, divided, shown, and a step learnt from it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from sweeps import work
from sweeps.cli import main
from sweeps.spec import load_spec
from tests.extending.data_set import CORNERS, write
from tests.extending.page import YAML
from tests.sweeps.sweep_files import text_of
from trainables.trial import run_trial


@pytest.fixture
def spec_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sweep file of the page beside the data."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "shapes", {"train": 40, "test": 8})
    training = {"base_epochs": 1, "epochs": 1, "batch_size": 8}
    path = tmp_path / "shapes.yaml"
    path.write_text(text_of(**yaml.safe_load(YAML), training=training, storage="runs"), encoding="utf-8")
    return path


def test_boxes_bound_what_is_drawn(tmp_path: Path) -> None:
    write(tmp_path, {"train": 20})
    coco = json.loads((tmp_path / "train.json").read_text())
    assert {one["category_id"] for one in coco["annotations"]} == set(range(len(CORNERS)))
    for one in coco["annotations"]:
        x, y, width, height = one["bbox"]
        picture = cv2.imread(str(tmp_path / "train" / f"{one['image_id']}.png"))
        drawn = np.isin(picture, (0, 255)).all(-1)[y : y + height, x : x + width]
        rows, columns = (np.flatnonzero(drawn.any(axis)) for axis in (1, 0))
        assert (rows[0], rows[-1], columns[0], columns[-1]) == (0, height - 1, 0, width - 1)


def test_a_sweep_sees_its_steps(spec_file: Path) -> None:
    shown = CliRunner().invoke(main, ["data", str(spec_file)], catch_exceptions=False)
    assert shown.exit_code == 0
    assert "square, diamond" in shown.output
    assert "triangle, arrow" in shown.output


def test_a_chain_learns_from_it(spec_file: Path) -> None:
    spec = load_spec(spec_file)
    splits = work.prepared(spec)
    events: list[dict[str, object]] = []
    run_trial(work.base_config(spec, splits), work.runtime(spec, splits), events.append)
    assert [[row["class"] for row in event["classes"]] for event in events] == [[*CORNERS][:2], [*CORNERS]]
