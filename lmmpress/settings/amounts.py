"""What a stage removes, as a plan writes it: a whole number, a share of a tower's width, or one of these by tower.

A share stays a share until the model is known: `lmmpress.pruning.amounts` makes a whole number of it.
"""

import re
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, Discriminator, Field, Tag

from lmmpress.settings.faults import nearest
from lmmpress.settings.schedule import TowerName

_TOWERS = tuple(name for name in get_args(TowerName) if name != "largest")
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,9})?) ?%")


def share_text(text: str) -> str:
    """A share in its one form, such as 12.5%. ValueError if the text is no share above 0% and up to 100%."""
    found = _SHARE.fullmatch(text.strip())
    percent = Decimal(found[1]) if found else Decimal(0)
    if not 0 < percent <= 100:
        raise ValueError("is no share above 0% and up to 100%; write it like 25% or 12.5%")
    return f"{percent.normalize():f}%"


def fraction_of(share: str) -> Fraction:
    """A share as a number: 1/4 for 25%."""
    return Fraction(share.removesuffix("%")) / 100


def _tower(name: str) -> str:
    """Check the name of a tower that is a key."""
    if name not in _TOWERS:
        raise ValueError(f"unknown key; {nearest(name, _TOWERS)}")
    return name


def _form(given: Any) -> str:
    if isinstance(given, dict):
        return "towers"
    return "share" if isinstance(given, str) and "%" in given else "number"


_Number = Annotated[int, Field(gt=0), Tag("number")]
_Share = Annotated[str, AfterValidator(share_text), Tag("share")]

OneAmount = Annotated[_Number | _Share, Discriminator(lambda given: "share" if _form(given) == "share" else "number")]
ByTower = Annotated[dict[Annotated[str, AfterValidator(_tower)], OneAmount], Tag("towers")]
Amount = Annotated[_Number | _Share | ByTower, Discriminator(_form)]


def amount_for(amount: Amount, tower: str | None) -> int | str:
    """An amount of one tower; None stands for the largest tower, which has no amount of its own."""
    return amount[str(tower)] if isinstance(amount, dict) else amount


def each(amount: Amount) -> list[int | str]:
    """The amount, or those of all towers."""
    return list(amount.values()) if isinstance(amount, dict) else [amount]


def in_one_form(amount: Amount) -> Amount:
    """One amount if all towers have the same, so that a plan has one run key in either form."""
    found = each(amount)
    return found[0] if len(set(found)) == 1 else amount
