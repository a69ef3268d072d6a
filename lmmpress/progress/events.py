"""The events of long work, and the functions that send them to the listener of this context."""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from lmmpress.printing.terminal import fit

T = TypeVar("T")
Unit = Literal["items", "bytes"]


@dataclass(frozen=True)
class Said:
    """A line for people. Control characters in it are visible, and it holds no credentials."""

    words: str


@dataclass(frozen=True)
class Part:
    """The part of a run that work belongs to, such as `distill`. `step` names the step, empty outside of steps.

    `usual` are the seconds that the part has taken in the steps before. `later` are the seconds that the steps of the
    run still take after the part: so many at most, if they take as long as those before. Both are None where nothing
    is known of them.
    """

    name: str
    step: str = ""
    usual: float | None = None
    later: float | None = None


@dataclass(frozen=True)
class Outlook:
    """What is known of a step before its parts are made: its name, and `usual` and `later` of its parts by name."""

    step: str = ""
    usual: Mapping[str, float] = field(default_factory=dict)
    later: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """The progress of a piece of work: `done` of `total`, counted in `unit`. `total` is None if it is not known.

    `number` distinguishes pieces of work with equal labels. The first event of a piece has `done` 0, the last one
    `over`. A part is itself a piece of work, of unknown length, that contains others; `part` is None outside of parts.
    """

    number: int
    label: str
    done: int
    total: int | None
    unit: Unit = "items"
    over: bool = False
    part: Part | None = None


Event = Said | Work
Listener = Callable[[Event], None]
"""It is called in the thread that does the work. An exception that it raises ends the work."""


@dataclass
class _Listening:
    listener: Listener
    said: set[str] = field(default_factory=set)
    open: dict[int, Work] = field(default_factory=dict)
    ended: bool = False

    def tell(self, event: Event) -> None:
        """Send an event, unless the block has ended: a generator that is forgotten may end later than its block."""
        if self.ended:
            return
        if isinstance(event, Work):
            if event.over:
                self.open.pop(event.number, None)
            else:
                self.open[event.number] = event
        self.listener(event)

    def end(self) -> None:
        """Send the end of what has not ended."""
        for work in list(self.open.values()):
            self.tell(replace(work, over=True))
        self.ended = True


_listening: ContextVar[_Listening | None] = ContextVar("listening", default=None)
_outlook: ContextVar[Outlook] = ContextVar("outlook", default=Outlook())  # noqa: B039 (it is frozen)
_part: ContextVar[Part | None] = ContextVar("part", default=None)
_numbers = itertools.count()


@contextmanager
def listening(listener: Listener | None, beside: bool = False) -> Iterator[None]:
    """Send the events of this block to `listener`, and with `beside` also to the listener outside of the block. None
    changes nothing: the listener outside, if there is one, gets them. Work that has not ended by the end of the block
    ends with it."""
    if listener is None:
        yield
        return
    outside = _listening.get() if beside else None
    heard = _Listening(listener if outside is None else _both(listener, outside.tell))
    token = _listening.set(heard)
    try:
        yield
    finally:
        _listening.reset(token)
        heard.end()


def _both(first: Listener, second: Listener) -> Listener:
    def tell(event: Event) -> None:
        first(event)
        second(event)

    return tell


def say(words: str) -> None:
    """Send a line for people."""
    if heard := _listening.get():
        heard.tell(Said(fit(words)))


def say_once(words: str) -> None:
    """Send a line for people, at most once to each listener."""
    heard = _listening.get()
    if heard and words not in heard.said:
        heard.said.add(words)
        say(words)


def retold() -> Callable[[Work], None]:
    """A function that sends the work of another process, whose numbers count in that process, to the listener of this
    context; it belongs to the part of this context if it names none. The function may be called in any thread."""
    heard, inside, numbers = _listening.get(), _part.get(), dict[int, int]()

    def tell(work: Work) -> None:
        if heard:
            number = numbers.setdefault(work.number, next(_numbers))
            heard.tell(replace(work, number=number, label=fit(work.label), part=work.part or inside))

    return tell


@contextmanager
def at_step(outlook: Outlook) -> Iterator[None]:
    """Parts in this block are those of a step."""
    token = _outlook.set(outlook)
    try:
        yield
    finally:
        _outlook.reset(token)


@contextmanager
def part(name: str) -> Iterator[None]:
    """What is done in this block is a part of a run."""
    outlook = _outlook.get()
    now = Part(fit(name), fit(outlook.step), outlook.usual.get(name), outlook.later.get(name))
    token = _part.set(now)
    try:
        with _work(Work(next(_numbers), now.name, 0, None)):
            yield
    finally:
        _part.reset(token)


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
    changing, now = threading.Lock(), replace(begun, part=_part.get())

    def change(amount: int, label: str | None) -> None:
        nonlocal now
        with changing:
            now = replace(now, done=now.done + amount, label=now.label if label is None else label)
            heard.tell(now)

    try:
        heard.tell(now)
        yield change
    finally:
        heard.tell(replace(now, over=True))
