"""VOC's own files are learnt from, and scored as VOC does beside COCO's AP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.smoke.chains import runtime
from tests.trainables.datasets.files import voc_year
from tests.trainables.trials import trial_config
from trainables.datasets import DataConfig, prepare
from trainables.scenarios import VOC, custom_scenario
from trainables.trial import run_trial
from trainables.voc_evaluation import MEANS

pytestmark = pytest.mark.smoke


def test_a_chain_on_voc_has_vocs_table_beside_cocos(tmp_path: Path) -> None:
    lists = {"trainval": [f"{n:06d}" for n in range(24)], "test": [f"{n:06d}" for n in range(40, 50)]}
    voc_year(tmp_path / "VOCdevkit", "VOC2007", lists)
    splits = prepare(DataConfig(kind="voc", root=str(tmp_path)), tmp_path / "work")
    scenario = custom_scenario([["dog", VOC[4]], [VOC[5], VOC[6]]])
    config = trial_config(splits.train.digest, "finetune", scenario=scenario, base_epochs=4, batch_size=4)
    events: list[dict[str, Any]] = []
    run_trial(config, runtime(splits, tmp_path / "store", evaluate_on="test"), events.append)
    rows = events[-1]["classes"]
    assert [(row["class"], row["gts"]) for row in rows] == [("dog", 10), (VOC[4], 1), (VOC[5], 0), (VOC[6], 1)]
    assert {"ap", "dets", "recall50", *MEANS} <= rows[0].keys()
    assert rows[2]["voc11_ap50"] is None
    metrics = events[-1]["metrics"]
    for name in MEANS:
        known = [row[name] for row in rows if row[name] is not None]
        assert metrics[f"{name}_all"] == pytest.approx(sum(known) / len(known))
    assert events[0]["metrics"]["voc11_ap50_all"] >= events[0]["metrics"]["voc11_ap_all"]
