"""Progress of long work: what is being done, how far, how long still. Silent where nobody watches."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from lmmpress.printing.terminal import Terminal, fit

T = TypeVar("T")

console = Terminal(stderr=True)
NOTES = "LMMPRESS_NOTES"
"""The variable that names a file in which processes note their own words for the one that started them. What stands on
their output may be a stranger's."""

_WORTH_SHOWING = 32 << 20  # bytes
_said: set[str] = set()


def begin_saying() -> None:
    """A run begins: what was said of another one may be said again."""
    _said.clear()


def say_once(words: str) -> None:
    """A line on stderr for people, at most once a run."""
    if words not in _said:
        _said.add(words)
        console.print(words)


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield `items` behind a progress bar with the time left; plain iteration where stderr is no terminal."""
    with counter(label, total if total is not None else len(items)) as advance:  # type: ignore[arg-type]
        for item in items:
            yield item
            advance(1)


@contextmanager
def counter(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar that is moved by hand: yields a function that takes how much more is done."""
    with _bar(label, total, (MofNCompleteColumn(), TimeElapsedColumn()), console.is_terminal) as advance:
        yield advance


@contextmanager
def transfer(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar of `total` bytes with rate and time left: yields a function that takes how many more went by."""
    # what is over in a moment only flickers
    shown = console.is_terminal and total >= _WORTH_SHOWING
    with _bar(label, total, (DownloadColumn(), TransferSpeedColumn()), shown) as advance:
        yield advance


@contextmanager
def _bar(label: str, total: int, done: tuple[ProgressColumn, ...], shown: bool) -> Iterator[Callable[[int], None]]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *done,
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        task = progress.add_task(fit(label), total=total)
        yield lambda amount: progress.advance(task, amount)


def note(**words: str) -> None:
    """Tell the process that started this one, where it asks for that; each word under a name that both know."""
    if file := os.environ.get(NOTES):
        with open(file, "a", encoding="utf-8") as notes:
            notes.write(json.dumps({name: fit(one) for name, one in words.items()}) + "\n")
