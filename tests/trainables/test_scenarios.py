"""Which classes are learnt in which step, under which label id."""

from __future__ import annotations

import pytest

from trainables.errors import DataError
from trainables.scenarios import CLASS_NAMES, COCO, NAMED, VOC, Scenario, class_order, custom_scenario, named_scenario


def test_class_names_are_whole_and_distinct() -> None:
    assert {family: len(names) for family, names in CLASS_NAMES.items()} == {"digits": 10, "coco": 80, "voc": 20}
    assert all(len(set(names)) == len(names) for names in CLASS_NAMES.values())
    assert tuple(sorted(VOC)) == VOC
    assert (COCO[0], COCO[79]) == ("person", "toothbrush")


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("order", ["coco_id", "alphabetical", "shuffle:3"])
def test_a_named_split_hands_out_every_class_once(name: str, order: str) -> None:
    scenario = named_scenario(name, order)
    family, _, split = name.partition("/")
    sizes = [40, 40] if split == "last40+first40" else [int(size) for size in split.split("+")]
    assert [len(step) for step in scenario.steps] == sizes
    assert sorted(scenario.class_names) == sorted(CLASS_NAMES[family])


@pytest.mark.parametrize(("first", "shared"), [(20, 7), (40, 21), (50, 32), (60, 46), (70, 62)])
def test_the_two_coco_orders_share_few_of_their_first_classes(first: int, shared: int) -> None:
    by_id, by_name = (class_order(COCO, order)[:first] for order in ("coco_id", "alphabetical"))
    assert len(set(by_id) & set(by_name)) == shared


@pytest.mark.parametrize(
    ("order", "last", "first"), [("coco_id", "bottle", "wine glass"), ("alphabetical", "keyboard", "kite")]
)
def test_where_forty_and_forty_part(order: str, last: str, first: str) -> None:
    old, new = named_scenario("coco/40+40", order).steps
    assert (old[-1], new[0]) == (last, first)
    assert named_scenario("coco/last40+first40", order).steps == (new, old)


def test_one_by_one_has_six_steps() -> None:
    scenario = named_scenario("voc/15+1+1+1+1+1")
    assert scenario.steps[1:] == tuple((name,) for name in ("pottedplant", "sheep", "sofa", "train", "tvmonitor"))


def test_labels_are_positions_in_the_order_of_classes() -> None:
    scenario = named_scenario("digits/4+3+3", list("3014256789"))
    assert scenario.steps == (tuple("3014"), tuple("256"), tuple("789"))
    assert scenario.class_names == tuple("3014256789")
    assert scenario.class_step == (0, 0, 0, 0, 1, 1, 1, 2, 2, 2)
    assert scenario.seen(0) == tuple("3014")
    assert scenario.seen(1) == tuple("3014256")
    assert scenario.seen(2) == scenario.class_names


def test_a_shuffle_follows_its_seed() -> None:
    one, same, other = (named_scenario("digits/5+5", f"shuffle:{seed}") for seed in (1, 1, 2))
    assert one == same
    assert len({one.digest, other.digest, named_scenario("digits/5+5").digest}) == 3


def test_identity_is_in_the_steps_not_in_the_name() -> None:
    scenario = named_scenario("digits/5+5")
    assert custom_scenario([list("01234"), list("56789")], "mine").digest == scenario.digest
    assert named_scenario("digits/10").digest != scenario.digest
    assert named_scenario("voc/10+10", "alphabetical").digest == named_scenario("voc/10+10").digest  # the same order


def test_a_name_says_the_order_where_it_is_not_the_usual_one() -> None:
    assert named_scenario("coco/40+40").name == "coco/40+40"
    assert named_scenario("coco/40+40", "alphabetical").name == "coco/40+40@alphabetical"
    lists = [named_scenario("digits/5+5", order).name for order in (list("9876543210"), list("8976543210"))]
    assert len(set(lists)) == 2


def test_an_unknown_name_is_told_with_all_known_ones() -> None:
    with pytest.raises(DataError, match="scenario: 'digits/5\\+6' is unknown; available: ") as raised:
        named_scenario("digits/5+6")
    assert all(name in str(raised.value) for name in NAMED)


@pytest.mark.parametrize("order", ["by_size", "shuffle:", "shuffle:-1", "shuffle:1.5"])
def test_an_unknown_order_is_told_with_all_known_ones(order: str) -> None:
    with pytest.raises(DataError, match="available: coco_id, alphabetical, shuffle:<seed>, a list"):
        named_scenario("digits/5+5", order)


@pytest.mark.parametrize(
    ("order", "problem"),
    [
        (list("012345678"), r"missing \['9'\], unknown \[\]"),
        (list("012345678x"), r"missing \['9'\], unknown \['x'\]"),
        (list("01234567899"), "must name each class once"),
    ],
)
def test_an_order_names_each_class_once(order: list[str], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        named_scenario("digits/5+5", order)


def test_a_custom_scenario_keeps_its_groups() -> None:
    scenario = custom_scenario([["cat", "dog"], ["bird"]])
    assert scenario == Scenario("custom", (("cat", "dog"), ("bird",)))
    assert scenario.class_step == (0, 0, 1)


def test_everything_wrong_with_a_custom_scenario_is_told_at_once() -> None:
    with pytest.raises(DataError) as raised:
        custom_scenario([["cat", "dog"], [], ["cat", "bird", "bird"]])
    assert raised.value.problems == (
        "step 2 is empty; every step needs at least one class",
        "class 'bird' is named 2 times",
        "class 'cat' is named 2 times",
    )
    with pytest.raises(DataError, match="there are no steps"):
        custom_scenario([])
