"""`numeric`: one number is read from a text, in the forms of docs/metrics.md, and compared within a tolerance."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmmpress.errors import UserError
from lmmpress.metrics import check_answers, metric_named, score_rows
from lmmpress.metrics.quantity import quantity

TRIED = settings(deadline=None, max_examples=200)
DIGITS, UNITS = "零一二三四五六七八九", ("", "十", "百", "千")


def in_chinese(number: int) -> str:
    """A whole number as people write it in full: the second implementation, which goes the other way."""
    if number >= 10**8:
        high, low = divmod(number, 10**8)
        return in_chinese(high) + "亿" + rest(low, 10**7)
    if number >= 10**4:
        high, low = divmod(number, 10**4)
        return in_chinese(high) + "万" + rest(low, 10**3)
    written, zero = "", False
    for power in (3, 2, 1, 0):
        digit = number // 10**power % 10
        if digit:
            written += ("零" if zero else "") + DIGITS[digit] + UNITS[power]
        zero = (bool(written) and not digit) or (zero and not digit)
    return written or "零"


def rest(low: int, full: int) -> str:
    return "" if not low else ("零" if low < full else "") + in_chinese(low)


@TRIED
@given(number=st.integers(0, 10**12 - 1))
def test_chinese_numerals_are_read_as_they_are_written(number: int) -> None:
    assert quantity(in_chinese(number)) == number
    assert quantity(f"负{in_chinese(number)}元") == -number
    assert quantity("".join(DIGITS[int(digit)] for digit in str(number))) == number


@TRIED
@given(number=st.decimals(-(10**12), 10**12, places=3))
def test_separators_signs_and_currencies_do_not_matter(number: Decimal) -> None:
    english = f"{number:,.3f}"
    french = english.translate(str.maketrans(",.", "\u202f,"))
    german = english.translate(str.maketrans(",.", ".,"))
    swiss = english.replace(",", "’")
    full = "".join(chr(ord(one) + 0xFEE0) if one.isdigit() else one for one in english)
    for text in (english, swiss, full, f"it is {english} euros.", f"${english}", f"{number:f}"):
        assert quantity(text) == number, text
    if abs(number) >= 1000:  # else the only comma stands before three digits, and is read as one of thousands
        assert quantity(german) == quantity(french) == number
    assert quantity(f"{english}%") == number / 100
    assert quantity(f"{english} million") == number * 10**6


@TRIED
@given(text=st.text("0123456789.,'-+e %$一二十百千万亿点零负分之", max_size=60))
def test_whatever_a_text_is_it_has_one_finite_number_or_none(text: str) -> None:
    found = quantity(text)
    assert found is None or found.is_finite()


def test_digits_of_a_word_do_not_hide_a_numeral() -> None:
    assert quantity("A4纸三张") == 3
    assert quantity("two sheets of A4") == 2


NO_NUMBER = ("", "none", "A4", "千万别", "万一", "十点十五", "twenty")
SEVERAL = ("10-20", "2024-11-30", "10:30", "1/2", "1 or 2", "统一价五元")
MALFORMED = ("1.2.3.4", "1,23,4", "5'11", "9" * 41, "1e31", "1e999999999")


@pytest.mark.parametrize("text", [*NO_NUMBER, *SEVERAL, *MALFORMED])
def test_a_text_without_a_number_or_with_several_has_none(text: str) -> None:
    assert quantity(text) is None


@TRIED
@given(
    said=st.decimals(-1000, 1000, places=2),
    right=st.decimals(-1000, 1000, places=2),
    relative=st.sampled_from([0.0, 0.05, 0.5]),
    absolute=st.sampled_from([0.0, 0.1, 5.0]),
)
def test_the_larger_of_two_tolerances_holds(said: Decimal, right: Decimal, relative: float, absolute: float) -> None:
    """In whole hundredths of a hundredth, so that nothing is rounded."""
    off = abs(int(said * 10_000) - int(right * 10_000))
    reach = max(abs(int(right * 100)) * round(relative * 100), round(absolute * 10_000))
    metric = metric_named("numeric", {"relative": relative, "absolute": absolute})
    assert score_rows(metric, [f"{said:f}"], [[f"{right:f}"]]) == [float(off <= reach)]


def test_without_a_tolerance_it_is_a_twentieth() -> None:
    assert score_rows(metric_named("numeric"), ["1.05", "1.051"], [["1"], ["1"]]) == [1.0, 0.0]
    only_absolute = metric_named("numeric", {"absolute": 0.5})
    assert score_rows(only_absolute, ["100.5", "101"], [["100"], ["100"]]) == [1.0, 0.0]
    assert "5 %" in metric_named("numeric").about
    assert "0.5 of" in only_absolute.about


def test_a_right_answer_that_is_no_number_is_a_fault_of_its_row() -> None:
    metric = metric_named("numeric")
    check_answers(metric, ["5", "五"], "metadata.jsonl, line 3")
    with pytest.raises(UserError) as caught:
        check_answers(metric, ["5", "a few"], "metadata.jsonl, line 3")
    (line,) = caught.value.lines
    assert line.startswith("metadata.jsonl, line 3: the right answer 'a few' holds no number")
    assert "'numeric'" in line
    check_answers(metric_named("rouge_l"), ["a few"], "line 3")


@pytest.mark.parametrize("parameters", [{"relative": -0.1}, {"absolute": float("inf")}, {"relative": float("nan")}])
def test_a_tolerance_out_of_range_is_refused(parameters: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"^metric 'numeric': (relative|absolute) is .*; it is a number from 0 on$"):
        metric_named("numeric", parameters)
