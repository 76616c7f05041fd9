"""Ranks: two processes that call what the first one announces, and share its batches."""

from __future__ import annotations

import os
from pathlib import Path

import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.dataset import DefaultSampler
from torch.utils.data import BatchSampler

from trainables.ranks import RankShare, WholeSampler, announce, dismiss, follow, of_each, world


def note(folder: Path, text: str) -> None:
    (folder / f"{world()[0]} {text}").touch()


def rank(number: int, folder: Path) -> None:
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=number, world_size=2)
    if number:
        follow()
    else:
        for text in ("one", "two"):
            announce(note, folder, text)
            note(folder, text)
        dismiss()
    batches = RankShare(BatchSampler(WholeSampler(range(9), seed=1), 4, drop_last=True))
    assert len(batches) == 2
    note(folder, str(of_each(list(batches))))
    dist.destroy_process_group()


def test_the_first_leads_and_together_they_see_every_batch(tmp_path: Path) -> None:
    mp.spawn(rank, (tmp_path,), 2)
    order = list(DefaultSampler(range(9), shuffle=True, seed=1))
    shares = [[order[first:4:2], order[4 + first : 8 : 2]] for first in (0, 1)]
    names = {f"{number} {text}" for number in (0, 1) for text in ("one", "two", shares)}
    assert {path.name for path in tmp_path.iterdir()} - {"group"} == names


def test_a_process_alone_announces_nothing(tmp_path: Path) -> None:
    announce(note, tmp_path, "told")
    dismiss()
    assert list(tmp_path.iterdir()) == []
    assert of_each(3) == [3]
