"""Progress of long work: what is being done, how far, how long still. Silent where nobody watches."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
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

T = TypeVar("T")

console = Console(stderr=True, soft_wrap=True, markup=False, emoji=False)
_WORTH_SHOWING = 32 << 20  # bytes


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
    columns = (TextColumn("{task.description}"), BarColumn(), *done, TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        task = progress.add_task(label, total=total)
        yield lambda amount: progress.advance(task, amount)
