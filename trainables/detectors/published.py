"""Weights as other projects publish them, under the names that they have here."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

AVERAGED, PLAIN = "avg_model.", "model."
OURS = {"fpn.": "neck.", "head.distribution_project.": "bbox_head.integral.", "head.": "bbox_head."}
AUXILIARY = ("aux_fpn.", "aux_head.")


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a detector; those of RangiLyu/nanodet and pastifra/Continual_Nanodet, averaged where they are,
    under our names and without the auxiliary head; those of others as they are."""
    prefix = next((one for one in (AVERAGED, PLAIN) if any(name.startswith(f"{one}backbone.") for name in tensors)), "")
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if not any(name.startswith("fpn.") for name in own):
        return own
    return {_ours(name): tensor for name, tensor in own.items() if not name.startswith(AUXILIARY)}


def _ours(name: str) -> str:
    start = next((start for start in OURS if name.startswith(start)), "")
    return OURS.get(start, "") + name.removeprefix(start)
