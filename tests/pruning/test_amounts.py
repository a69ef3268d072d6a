"""Shares of a plan become whole numbers of the model that a run starts from, each of them legal."""

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.tiny import config_of

from lmmpress.errors import UserError
from lmmpress.lmm.anatomy import Anatomy
from lmmpress.lmm.read_anatomy import anatomy_of
from lmmpress.plan import parse_plan
from lmmpress.pruning.amounts import nearest_legal, what_shares_became, with_numbers
from lmmpress.pruning.choose import check_removed
from lmmpress.pruning.sizes import predict
from lmmpress.stages import Amounts

BOTH = {"model": "m", "data": "d", "towers": ["vision", "language"]}
SHARES = {"step": "25%", "max": "75%"}

shares = st.fractions(Fraction(1, 1000), Fraction(99, 100), max_denominator=1000)
percents = st.decimals(min_value=1, max_value=99, places=1).map(lambda number: f"{number}%")
units = st.integers(1, 64)
counts = st.integers(2, 400)


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    """Towers vision (2 blocks, FFN 48), qformer and language (4 blocks, FFN 64, heads that shrink by planes)."""
    return anatomy_of(config_of("blip2-llama"))


@given(shares, counts, units)
def test_a_share_becomes_the_legal_amount_that_is_nearest_to_it(share: Fraction, count: int, unit: int) -> None:
    width = count * unit
    legal = [number for number in range(1, width) if number % unit == 0]
    found = nearest_legal(share, width, unit)
    assert found in legal
    assert abs(found - share * width) == min(abs(number - share * width) for number in legal)


@given(shares, shares, counts, units)
def test_a_larger_share_is_no_smaller_amount(one: Fraction, other: Fraction, count: int, unit: int) -> None:
    less, more = sorted((one, other))
    assert nearest_legal(less, count * unit, unit) <= nearest_legal(more, count * unit, unit)


@pytest.mark.parametrize(
    ("share", "width", "unit", "amount"),
    [
        (Fraction(1, 4), 12, 1, 3),  # the example of docs/plan.md
        (Fraction(3, 4), 12, 1, 9),
        (Fraction(1, 4), 3, 1, 1),
        (Fraction(3, 4), 3, 1, 2),
        (Fraction(1, 2), 3, 1, 1),  # as near to 2: the smaller one
        (Fraction(1, 100), 12, 1, 1),  # at least one unit
        (Fraction(1, 100), 96, 32, 32),
        (Fraction(99, 100), 12, 1, 11),  # never the whole width
        (Fraction(1), 12, 4, 8),
        (Fraction(1, 2), 10, 4, 4),  # units do not divide the width
        (Fraction(99, 100), 10, 4, 8),
        (Fraction(1, 2), 4, 4, 0),  # nothing that could be removed
    ],
)
def test_a_share_of_a_width(share: Fraction, width: int, unit: int, amount: int) -> None:
    assert nearest_legal(share, width, unit) == amount


@given(percents, percents, counts)
def test_there_are_never_more_steps_than_shares_say_before_the_model_is_known(step: str, most: str, width: int) -> None:
    said = Amounts(step=step, max=most)
    numbers = [nearest_legal(Fraction(share.removesuffix("%")) / 100, width, 1) for share in (step, most)]
    made = Amounts(step=numbers[0], max=numbers[1])
    assert len(made.removals()) <= said.most_steps()
    exact = math.ceil(Fraction(most[:-1]) / Fraction(step[:-1]))
    assert exact <= said.most_steps() <= math.ceil(1.5 * exact) + 1


def test_each_tower_gets_amounts_of_its_own(anatomy: Anatomy) -> None:
    written = parse_plan(BOTH | {"stages": {"block": SHARES, "ffn": SHARES}})
    plan = with_numbers(written, anatomy)
    assert [stage.as_written() for stage in plan.stages] == [
        {"axis": "block", "step": 1, "max": {"vision": 1, "language": 3}},
        {"axis": "ffn", "step": {"vision": 12, "language": 16}, "max": {"vision": 36, "language": 48}},
    ]
    assert [(size.stage, size.tower, size.removed) for size in predict(anatomy, plan)[1:]] == [
        ("block", "vision", 1),
        *[("block", "language", 1)] * 3,
        *[("ffn", "vision", 12)] * 3,
        *[("ffn", "language", 16)] * 3,
    ]
    assert what_shares_became(written, plan) == [
        "block of the vision tower: step 25% is 1, max 75% is 1",
        "block of the language tower: step 25% is 1, max 75% is 3",
        "ffn of the vision tower: step 25% is 12, max 75% is 36",
        "ffn of the language tower: step 25% is 16, max 75% is 48",
    ]


def test_the_plan_with_numbers_is_the_one_that_a_person_would_write(anatomy: Anatomy) -> None:
    """So both have one run key; with one tower it is a plan of the older form."""
    shares = with_numbers(parse_plan(BOTH | {"stages": {"ffn": SHARES}}), anatomy)
    numbers = {"step": {"language": 16, "vision": 12}, "max": {"language": 48, "vision": 36}}
    assert shares == parse_plan(BOTH | {"stages": {"ffn": numbers}})
    assert shares.key_settings() == parse_plan(BOTH | {"stages": {"ffn": numbers}}).key_settings()
    one = BOTH | {"towers": ["language"]}
    alone = with_numbers(parse_plan(one | {"stages": {"ffn": SHARES}}), anatomy)
    assert alone == parse_plan(one | {"stages": {"ffn": {"step": 16, "max": 48}}})
    own = [{"axis": "ffn", "tower": "vision"} | SHARES]
    assert with_numbers(parse_plan(one | {"stages": own}), anatomy).stages[0].amounts() == {"step": 12, "max": 36}


def test_a_plan_of_whole_numbers_stays_as_it_is(anatomy: Anatomy) -> None:
    plan = parse_plan(BOTH | {"stages": {"ffn": {"step": 7, "max": 9999}}})
    assert with_numbers(plan, anatomy) is plan
    mixed = {"step": {"vision": 8, "language": "25%"}, "max": "50%"}
    assert with_numbers(parse_plan(BOTH | {"stages": {"ffn": mixed}}), anatomy).stages[0].amounts() == {
        "step": {"vision": 8, "language": 16},
        "max": {"vision": 24, "language": 32},
    }


def test_a_second_stage_along_an_axis_takes_shares_of_the_original_too(anatomy: Anatomy) -> None:
    half = {"axis": "ffn", "step": "25%", "max": "50%"}
    raw = BOTH | {"towers": ["language"], "stages": [half, {"axis": "io", "step": 12, "max": 12}, half]}
    plan = with_numbers(parse_plan(raw), anatomy)
    assert [plan.stage(name).amounts() for name in ("ffn", "ffn-2")] == [{"step": 16, "max": 32}] * 2
    with pytest.raises(UserError, match=r"stage ffn-2, after the steps before it: ffn .* is 32 wide: 32 cannot be"):
        predict(anatomy, plan)


@settings(deadline=None, max_examples=25)
@given(step=percents, most=percents, axis=st.sampled_from(["block", "ffn", "attention", "io"]))
def test_any_shares_are_legal_for_every_tower(anatomy: Anatomy, step: str, most: str, axis: str) -> None:
    plan = parse_plan(BOTH | {"stages": {axis: {"step": step, "max": most}}})
    assume(all(anatomy.axis(tower, axis).inexpressible is None for tower in plan.towers))
    found = with_numbers(plan, anatomy)
    for tower in plan.towers:
        for amount in found.stages[0].numbers(tower):
            check_removed(anatomy.axis(tower, axis), tower, axis, amount)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"stages": {"block": {"step": 1, "max": 48}}}, "block of the vision tower is 2 wide: 48 cannot be removed"),
        (
            {"stages": {"attention": {"step": 3, "max": "50%"}}, "towers": ["language"]},
            "3 is none, the nearest legal value is 8",
        ),
    ],
)
def test_whole_numbers_stay_as_strict_as_they_were(anatomy: Anatomy, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        predict(anatomy, with_numbers(parse_plan(BOTH | {"stages": {"ffn": SHARES}} | changes), anatomy))


def test_a_tower_with_nothing_to_remove_is_refused_in_one_line() -> None:
    single = anatomy_of(config_of("text-llama", num_hidden_layers=1))
    plan = parse_plan(BOTH | {"towers": ["language"], "stages": {"block": SHARES}})
    with pytest.raises(UserError) as caught:
        with_numbers(plan, single)
    assert caught.value.lines == (
        "block: block of the language tower is 1 wide and shrinks by multiples of 1: there is nothing to remove; "
        "leave this tower out",
    )
    with pytest.raises(UserError, match="has no tower 'vision'; it has language"):
        with_numbers(parse_plan(BOTH | {"stages": {"block": SHARES}}), single)
