"""The result of a check, readable by users and by programs."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from lmmpress.printing.one_line import LONGEST, printable

Status = Literal["ok", "warning", "failed", "unknown"]


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
            object.__setattr__(self, name, printable(getattr(self, name), 2 * LONGEST if name == "mend" else LONGEST))


def ok(check: str, said: str) -> Finding:
    return Finding(check, "ok", said)


def warning(check: str, said: str, mend: str) -> Finding:
    return Finding(check, "warning", said, mend)


def failed(check: str, said: str, mend: str) -> Finding:
    return Finding(check, "failed", said, mend)


def unknown(check: str, said: str, mend: str = "") -> Finding:
    return Finding(check, "unknown", said, mend)


def some(names: Iterable[object], most: int = 4) -> str:
    """The first few of many names, and how many more there are."""
    listed = [str(name) for name in names]
    more = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {more} more" if more > 0 else "")
