"""The number that a text states, if it states exactly one: docs/metrics.md says which forms are read."""

import re
from collections.abc import Iterator
from decimal import Decimal

from lmmpress.metrics.metric import LONGEST
from lmmpress.metrics.numerals import DIGITS, POINTS, UNITS, numeral
from lmmpress.metrics.words import NUMBER_WORDS, one_width

_GREATEST_POWER = 30

# before NFKC, which makes usual spaces and digits of them
_MARKS = str.maketrans(dict.fromkeys("\u00a0\u202f\u2009’", "'") | dict.fromkeys("−–", "-") | dict.fromkeys("²³", ""))
_WORDS = re.compile(rf"\b(?:{'|'.join(NUMBER_WORDS)})\b")

_CURRENCY = r"[$¢£¥€₩₹₽₫]"
_NUMERAL = re.compile(
    rf"(?P<share>[百千]分之)?(?P<numeral>(?:[.{POINTS}]?\d|[{DIGITS}]|[{UNITS}](?![克米瓦卡]))"
    rf"(?:[.,'{POINTS}]?[\d{DIGITS}]|[{UNITS}](?![克米瓦卡]))*)"
    r"(?:e(?P<power>[-+]?\d+)(?!\w))?"
)
_NEGATIVE = re.compile(rf"(?:(?<![\w%)])-{_CURRENCY}?|{_CURRENCY}-|\b(?:minus|negative) |[负負]){_CURRENCY}?$")
_AFTER = re.compile(r"\s?(?:(hundred|thousand|million|billion|trillion)s?\b|(%|‰|percent\b|per cent\b))")
_POWERS = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_POWERS |= {"%": -2, "percent": -2, "per cent": -2, "‰": -3, "百分之": -2, "千分之": -3}


def quantity(text: str) -> Decimal | None:
    """The one number that a text states, with its sign and powers; None if it states none, or several different ones.

    Chinese numerals and English number words count only where there are no digits. Only the first 10,000 characters
    are read.
    """
    plain = one_width(text[:LONGEST].translate(_MARKS)).lower().replace("零下", "负")
    runs = _runs(plain)
    if any(_has_digits(run) for run in runs):
        runs = [run for run in runs if _has_digits(run)]
    elif not runs:
        plain = _WORDS.sub(lambda word: str(NUMBER_WORDS.index(word[0])), plain)
        runs = _runs(plain)
    found = set(_numbers(plain, runs))
    return found.pop() if len(found) == 1 else None


def _runs(text: str) -> list[re.Match[str]]:
    """What looks like numerals, without digits that belong to a word (A4)."""
    return [run for run in _NUMERAL.finditer(text) if not re.fullmatch("[a-z_]", text[run.start() - 1 : run.start()])]


def _has_digits(run: re.Match[str]) -> bool:
    return re.search(r"\d", run["numeral"]) is not None


def _numbers(text: str, runs: list[re.Match[str]]) -> Iterator[Decimal | None]:
    """The number of each run; None for digits that are no number. Chinese characters that are no numeral are left out
    (千万 of another word)."""
    for run in runs:
        start, value = run.start(), numeral(run["numeral"])
        if value is None:
            if _has_digits(run):
                yield None
            continue
        power = int(run["power"] or 0) if len(run["power"] or "") < 6 else _GREATEST_POWER + 1
        power += _POWERS.get(run["share"] or "", 0)
        end = run.end()
        while after := _AFTER.match(text, end):
            power += _POWERS[after[1] or after[2]]
            end = after.end()
        if abs(power) > _GREATEST_POWER:
            yield None
            continue
        sign = -1 if _NEGATIVE.search(text[max(0, start - 24) : start]) else 1
        yield (sign * value).scaleb(power)
