"""How the report writes numbers."""

import math

from lmmpress.result import Interval

MINUS = "\u2212"
MISSING = "\u2013"


def count(value: int) -> str:
    """A count in full, in groups of three."""
    return f"{value:,}".replace(",", "\u202f")


def short_count(value: float) -> str:
    """A count in three digits: 12.3 M."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def percent(share: float | None) -> str:
    """A share of one as a percentage."""
    return MISSING if share is None else f"{_signed(f'{100 * share:.1f}')} %"


def points(difference: float | None, plus: bool = False) -> str:
    """A difference of two shares in percentage points."""
    return MISSING if difference is None else _signed(f"{100 * difference:{'+' if plus else ''}.1f}")


def change(difference: float) -> str:
    """A difference of two numbers of any scale."""
    return _signed(f"{difference:+.4f}")


def interval(drop: Interval | None, share: bool = True) -> str:
    """A confidence interval of a drop: in percentage points if that is one of shares."""
    return MISSING if drop is None else f"{lost(drop.low, share)} to {lost(drop.high, share)}"


def worth(number: float | None, share: bool = True) -> str:
    """What rows are worth on average: a percentage if it is a share, else the number itself."""
    if share or number is None:
        return percent(number)
    return _signed(f"{number:.4f}")


def lost(difference: float | None, share: bool = True, plus: bool = False) -> str:
    """A difference of what rows are worth: percentage points if of shares, else the number itself."""
    if difference is None:
        return MISSING
    if math.isinf(difference):
        return _signed("-\u221e" if difference < 0 else "\u221e")
    return points(difference, plus) if share else _signed(f"{difference:{'+' if plus else ''}.4f}")


def factor(before: float, after: float) -> str:
    """How many times as large `before` is."""
    return f"{before / after:.2f}×" if after else MISSING


def duration(seconds: float) -> str:
    """A duration in seconds, minutes or hours, whichever reads best."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{seconds / 60:.1f} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def short_digest(digest: str | None) -> str:
    """The first twelve digits of a digest, which is enough to find it in the store."""
    return MISSING if digest is None else digest.removeprefix("sha256:")[:12]


def chance(p: float) -> str:
    """A p-value in two digits."""
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def brief(text: str, most: int = 400) -> str:
    """A text; of a long one the beginning."""
    return text if len(text) <= most else f"{text[:most]} …"


def _signed(number: str) -> str:
    """A number with a typographic minus, and without one before zero."""
    zero = not number.strip("+-0.")
    return number.strip("+-") if zero else number.replace("-", MINUS)
