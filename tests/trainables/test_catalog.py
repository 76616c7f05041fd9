"""What methods there are, alone and combined."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from search_spaces.params import params_of
from trainables.catalog import METHODS, load

DISTILLERS = ("erd", "latent", "ld", "lwf", "sid")


def test_replay_and_pseudo_labels_go_with_each_distiller_and_with_each_other() -> None:
    parts = ("replay", "pseudo_label", "replay-pseudo_label")
    combined = {f"{part}-{distiller}" for part in parts for distiller in DISTILLERS}
    assert set(METHODS) == {"finetune", *DISTILLERS, *parts, *combined, "ilyolox", "replay-ilyolox", "latent_replay"}


@pytest.mark.parametrize("name", METHODS)
def test_a_combination_has_the_parameters_and_defaults_of_its_parts(name: str) -> None:
    method = METHODS[name]
    values = asdict(method.presets[method.default_preset])
    for part in name.split("-"):
        alone = METHODS[part]
        own = asdict(alone.presets[alone.default_preset])
        assert {key: values[key] for key in own if key != "loss_scope"} == {k: own[k] for k in own if k != "loss_scope"}
        assert own.keys() - {"loss_scope"} <= params_of(method.params).keys()
    assert method.taught == (name not in ("finetune", "replay", "latent_replay"))


@pytest.mark.parametrize("name", [name for name in METHODS if "-" in name])
def test_beside_a_distiller_that_leaves_old_classes_to_itself_there_is_no_scope_to_choose(name: str) -> None:
    has = "loss_scope" in params_of(METHODS[name].params)
    assert has == (name.rpartition("-")[2] not in ("erd", "ld", "ilyolox"))


@pytest.mark.parametrize("name", DISTILLERS)
def test_every_preset_builds_its_distiller(name: str) -> None:
    for params in METHODS[name].presets.values():
        assert callable(load(METHODS[name].target)(params))
