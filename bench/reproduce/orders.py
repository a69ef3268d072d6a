"""Sentences about orders: whether what was found has the paper's order. The data says it; nobody writes it down."""

from collections.abc import Mapping
from itertools import groupby

from reproduce.spread import CONFIDENCE, MISSING, Numbers, told_apart


def order_of(values: Mapping[str, float], places: int = 4) -> str:
    """The names from the highest value to the lowest: a > b = c."""
    rounded = {name: round(value, places) for name, value in values.items()}
    ranked = sorted(rounded, key=lambda name: -rounded[name])
    groups = [" = ".join(group) for _, group in groupby(ranked, key=lambda name: rounded[name])]
    return " > ".join(groups)


def order_sentence(paper: Mapping[str, float], here: Mapping[str, Numbers], rows: int | None, reason: str) -> str:
    """Whether the paper's order is found here, and how many pairs of what was found are told apart, unless `rows` is
    None: sizes are no matter of chance. `reason` is what may explain another order; it stands there only if the order
    is another."""
    lacking = [name for name in paper if not here[name].whole]
    if lacking:
        return f"The orders are not compared: {', '.join(lacking)} {MISSING}."
    means = {name: here[name].mean for name in paper}
    printed, found = order_of(paper), order_of(means)
    pairs = [(a, b) for number, a in enumerate(paper) for b in list(paper)[:number]]
    of = ""
    if rows is not None:
        apart = sum(told_apart(here[a], here[b], rows) for a, b in pairs)
        of = f" ({apart} of {len(pairs)} pair{'s' if len(pairs) > 1 else ''} told apart at {100 * CONFIDENCE:.0f} %)"
    if printed == found:
        return f"Same order as in the paper: {printed}{of}."
    return f"Other order than in the paper ({printed}): here {found}{of}. {reason}".strip()


def difference(variant: Numbers, base: Numbers, rows: int) -> str:
    """Whether a variant is better or worse than the base, in a word or two."""
    if not (variant.whole and base.whole):
        return MISSING
    if not told_apart(variant, base, rows):
        return "no difference told"
    return "better" if variant.mean > base.mean else "worse"
