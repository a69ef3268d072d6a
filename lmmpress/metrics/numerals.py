"""Numerals as numbers: digits with separators (1,234.5), Chinese numerals (三百二十五, 二〇二四, 三点一四), and both
mixed (3万5千, 1.5亿)."""

import re
from decimal import Decimal

_LONGEST = 40  # characters of a numeral
_DIGITS = ("零〇", "一壹", "二贰貳两兩", "三叁參", "四肆", "五伍", "六陆陸", "七柒", "八捌", "九玖")
_UNITS = (("亿億", 8), ("万萬", 4), ("千仟", 3), ("百佰", 2), ("十拾", 1))  # with their powers of ten
_VALUES = {ord(character): str(value) for value, characters in enumerate(_DIGITS) for character in characters}

DIGITS = "".join(_DIGITS)
UNITS = "".join(characters for characters, _ in _UNITS)
POINTS = "点點"

_PARTS = re.compile(r"\d*(?:\.\d+)?")


def numeral(text: str) -> Decimal | None:
    """The number of a numeral; None if it is none, or has more than 40 characters.

    The greatest unit is taken first: 3万5千 is 3 times ten thousand, and what is left. One Chinese digit right after a
    unit from 百 on counts the next lower unit, as people say it: 一万二 is 12,000, 一万零二 is 10,002.
    """
    if len(text) > _LONGEST:
        return None
    for characters, power in _UNITS:
        at = max(text.rfind(character) for character in characters)
        if at >= 0:
            count = Decimal(1) if at == 0 and power == 1 else numeral(text[:at])
            rest = _after_unit(text[at + 1 :], power)
            if count is None or rest is None or rest >= 10**power or (power < 4 and count >= 10):
                return None
            return count.scaleb(power) + rest
    plain = text.translate(_VALUES)
    if plain != text or any(point in text for point in POINTS):
        plain = re.sub(f"[{POINTS}]", ".", plain)
        return Decimal(plain) if plain and _PARTS.fullmatch(plain) else None
    return _separated(text)


def _after_unit(text: str, power: int) -> Decimal | None:
    if not text:
        return Decimal(0)
    if power > 1 and len(text) == 1 and ord(text) in _VALUES:
        return Decimal(_VALUES[ord(text)]).scaleb(power - 1)
    return numeral(text)


def _separated(text: str) -> Decimal | None:
    """The number of digits with separators.

    Of `,` and `.` the last one is the decimal mark if both stand there, and neither if one stands there several times.
    A single `.` is the decimal mark; so is a single `,`, except between one to three digits and exactly three (1,234).
    An apostrophe separates thousands. Groups have three digits, or two and at last three as in India.
    """
    commas, points = text.count(","), text.count(".")
    if commas and points:
        mark = max(",.", key=text.rfind)
    elif commas == 1:
        mark = "" if re.fullmatch(r"[1-9]\d{0,2},\d{3}", text) else ","
    else:
        mark = "." if points == 1 else ""
    whole, _, decimals = text.rpartition(mark) if mark else (text, "", "")
    parts = re.split(r"[,.']", whole)
    if len(parts) > 1 and not _are_groups(parts, whole):
        return None
    if not (decimals or not mark) or not re.fullmatch(r"\d*", decimals):
        return None
    return Decimal(f"{''.join(parts)}.{decimals}" if decimals else "".join(parts)) if parts[0] or decimals else None


def _are_groups(parts: list[str], whole: str) -> bool:
    """Whether the parts of a whole number are groups of thousands, with one separator."""
    first, *middle, last = parts
    lengths = {len(part) for part in middle}
    one_mark = len(set(re.findall(r"[,.']", whole))) == 1
    return (
        one_mark
        and 1 <= len(first) <= 3
        and not first.startswith("0")
        and len(last) == 3
        and (lengths <= {3} or (lengths == {2} and len(first) <= 2))
    )
