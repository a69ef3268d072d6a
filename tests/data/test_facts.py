"""The facts of a split that a paired interval needs: which rows belong together."""

from itertools import pairwise, product
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lmmpress.data import Row, Split
from lmmpress.data.facts import facts_of

NAMES = st.lists(st.sampled_from("abcdefgh"), max_size=3).map(tuple)


def split_of(shown: list[tuple[str, ...]]) -> Split:
    return Split("test", Path(), tuple(Row("q", "a", "t", names) for names in shown), "d")


@given(st.lists(NAMES, min_size=1, max_size=12))
def test_rows_that_share_an_image_belong_together_directly_or_through_others(shown: list[tuple[str, ...]]) -> None:
    """Against the closure of "shares an image", written plainly."""
    together = [
        [one == other or bool(set(shown[one]) & set(shown[other])) for other in range(len(shown))]
        for one in range(len(shown))
    ]
    for middle, one, other in product(range(len(shown)), repeat=3):
        together[one][other] |= together[one][middle] and together[middle][other]
    owners = facts_of(split_of(shown)).owners().tolist()
    for one, other in product(range(len(shown)), repeat=2):
        assert (owners[one] == owners[other]) == together[one][other]


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=12))
def test_rows_of_one_image_are_numbered_by_their_images(shown: list[str]) -> None:
    """As they always were: the intervals of earlier runs stay."""
    first = {name: number for number, name in enumerate(dict.fromkeys(shown))}
    assert facts_of(split_of([(name,) for name in shown])).owners().tolist() == [first[name] for name in shown]


def test_a_chain_of_images_joins_all_its_rows() -> None:
    names = [f"{number}.png" for number in range(2000)]
    owners = facts_of(split_of([*reversed(list(pairwise(names))), ("alone.png",)])).owners().tolist()
    assert set(owners[:-1]) == {owners[0]}
    assert owners[-1] != owners[0]
