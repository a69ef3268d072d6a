"""The events of long work, and the functions that send them to the listener of this context."""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from lmmpress.printing.terminal import fit

T = TypeVar("T")


@dataclass(frozen=True)
class Said:
    """A line for people. Control characters in it are visible, and it holds no credentials."""

    words: str


@dataclass(frozen=True)
class Work:
    """The progress of a piece of work: `done` of `total`, counted in `unit`. `total` is None if it is not known.

    `number` distinguishes pieces of work with equal labels. The first event of a piece has `done` 0, the last one
    `over`.
    """

    number: int
    label: str
    done: int
    total: int | None
    unit: Literal["items", "bytes"] = "items"
    over: bool = False


Event = Said | Work
Listener = Callable[[Event], None]
"""It is called in the thread that does the work. An exception that it raises ends the work."""


@dataclass
class _Listening:
    listener: Listener
    said: set[str] = field(default_factory=set)


_listening: ContextVar[_Listening | None] = ContextVar("listening", default=None)
_numbers = itertools.count()


@contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Send the events of this block to `listener`. None changes nothing: the listener outside of the block, if there
    is one, gets them."""
    if listener is None:
        yield
        return
    token = _listening.set(_Listening(listener))
    try:
        yield
    finally:
        _listening.reset(token)


def say(words: str) -> None:
    """Send a line for people."""
    if heard := _listening.get():
        heard.listener(Said(fit(words)))


def say_once(words: str) -> None:
    """Send a line for people, at most once to each listener."""
    heard = _listening.get()
    if heard and words not in heard.said:
        heard.said.add(words)
        say(words)


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield `items`, with an event for each one that is done."""
    with counter(label, total if total is not None else len(items)) as advance:  # type: ignore[arg-type]
        for item in items:
            yield item
            advance(1)


@contextmanager
def counter(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Work on `total` items: yields a function to call, in any thread, with the number of further items done."""
    with _work(Work(next(_numbers), fit(label), 0, total)) as change:
        yield lambda amount: change(amount, None)


@contextmanager
def transfer(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Work on `total` bytes: yields a function to call, in any thread, with the number of further bytes done."""
    with _work(Work(next(_numbers), fit(label), 0, total, "bytes")) as change:
        yield lambda amount: change(amount, None)


@contextmanager
def doing(label: str) -> Iterator[Callable[[str], None]]:
    """Work of unknown length: yields a function to call with the label of what is done from now on."""
    with _work(Work(next(_numbers), fit(label), 0, None)) as change:
        yield lambda label: change(0, fit(label))


@contextmanager
def _work(begun: Work) -> Iterator[Callable[[int, str | None], None]]:
    """Send the events of one piece of work; yields a function to call with how much more is done, and a new label."""
    heard = _listening.get()
    if heard is None:
        yield lambda amount, label: None
        return
    listener, changing, now = heard.listener, threading.Lock(), begun

    def change(amount: int, label: str | None) -> None:
        nonlocal now
        with changing:
            now = replace(now, done=now.done + amount, label=now.label if label is None else label)
            listener(now)

    listener(now)
    try:
        yield change
    finally:
        listener(replace(now, over=True))
