"""How long this process waits for a server that has answered before, such as the store: LMMPRESS_PATIENCE."""

import os
import re

from lmmpress.errors import UserError

PATIENCE = "LMMPRESS_PATIENCE"
USUAL = "10m"
_UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds_of(text: str) -> float:
    """The seconds that a duration such as 90s, 10m or 1h names; ValueError if it is none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if not found:
        raise ValueError("is no duration, such as 90s, 10m or 1h")
    return float(found[1]) * _UNITS[found[2]]


def patience() -> float:
    """Seconds to wait, from the environment; UserError if the variable holds no duration."""
    text = os.environ.get(PATIENCE) or USUAL
    try:
        return seconds_of(text)
    except ValueError as error:
        raise UserError(f"{PATIENCE} is {text!r}, which {error}") from None


_FIRST = 10.0  # seconds for the first answer ever: a wrong address should not take minutes to be noticed
_begun = False


def be_patient_from_now() -> None:
    """Note that this process works on a run that has begun: the addresses are right, so a server that does not answer
    the first request is waited for like any other."""
    global _begun
    _begun = True


def first_patience() -> float:
    """Seconds to wait for a server's first answer."""
    return patience() if _begun else min(_FIRST, patience())
