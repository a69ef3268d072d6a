"""The result of a check, readable by users and by programs."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from lmmpress.printing.credentials import without_credentials

Status = Literal["ok", "warning", "failed", "unknown"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e]+")
_LONGEST = 400


@dataclass(frozen=True)
class Finding:
    """`said`: what was found. `mend`: the command or value that helps if it is not ok. The status `unknown` means that
    the check could not be run."""

    check: str
    status: Status
    said: str
    mend: str = ""

    def __post_init__(self) -> None:
        for name in ("check", "said", "mend"):
            object.__setattr__(self, name, printable(getattr(self, name), 2 * _LONGEST if name == "mend" else _LONGEST))


def ok(check: str, said: str) -> Finding:
    return Finding(check, "ok", said)


def warning(check: str, said: str, mend: str) -> Finding:
    return Finding(check, "warning", said, mend)


def failed(check: str, said: str, mend: str) -> Finding:
    return Finding(check, "failed", said, mend)


def unknown(check: str, said: str, mend: str = "") -> Finding:
    return Finding(check, "unknown", said, mend)


def printable(text: str, most: int = _LONGEST) -> str:
    """Text in one line that is safe for any terminal: without control characters and credentials, and shortened if it
    is very long."""
    text = _CONTROL.sub(" ", without_credentials(text)).encode("utf-8", "replace").decode("utf-8").strip()
    return text if len(text) <= most else f"{text[: most - 4]} ..."


def some(names: Iterable[object], most: int = 4) -> str:
    """The first few of many names, and how many more there are."""
    listed = [str(name) for name in names]
    more = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {more} more" if more > 0 else "")
