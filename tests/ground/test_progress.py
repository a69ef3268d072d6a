"""Progress: listeners get events in order; without a listener nothing is shown."""

import threading
from collections.abc import Callable

import pytest

from lmmpress.progress import Event, Said, Work, counter, doing, listening, say, say_once, track, transfer


@pytest.fixture
def heard() -> list[Event]:
    return []


def work_of_every_kind() -> None:
    say("a line")
    say_once("a note")
    say_once("a note")
    assert list(track("ab", "letters")) == ["a", "b"]
    with transfer("fetching", 10) as advance:
        advance(10)
    with doing("starting") as show:
        show("stopping")


def test_nothing_is_printed_where_nobody_listens(capfd: pytest.CaptureFixture[str]) -> None:
    work_of_every_kind()
    assert capfd.readouterr() == ("", "")


def test_a_listener_hears_of_everything_in_order(heard: list[Event], capfd: pytest.CaptureFixture[str]) -> None:
    with listening(heard.append):
        work_of_every_kind()
    assert heard[:2] == [Said("a line"), Said("a note")]
    letters, bytes_, starting = (
        [one for one in heard if isinstance(one, Work) and one.number == number]
        for number in dict.fromkeys(one.number for one in heard if isinstance(one, Work))
    )
    assert [(one.done, one.total, one.over) for one in letters] == [
        (0, 2, False),
        (1, 2, False),
        (2, 2, False),
        (2, 2, True),
    ]
    assert {one.unit for one in bytes_} == {"bytes"}
    assert [(one.label, one.total) for one in starting] == [("starting", None), ("stopping", None), ("stopping", None)]
    assert capfd.readouterr() == ("", "")


def test_a_note_is_for_each_listener_once(heard: list[Event]) -> None:
    for _ in range(2):
        with listening(heard.append), listening(None):
            say_once("a note")
            say_once("a note")
    assert heard == [Said("a note")] * 2


def test_the_innermost_listener_alone_gets_events(heard: list[Event]) -> None:
    outside: list[Event] = []
    with listening(outside.append):
        with listening(heard.append):
            say("inside")
        say("outside")
    assert (heard, outside) == ([Said("inside")], [Said("outside")])


def test_threads_count_together(heard: list[Event]) -> None:
    def many(advance: Callable[[int], None]) -> None:
        for _ in range(100):
            advance(1)

    with listening(heard.append), counter("rows", 400) as advance:
        threads = [threading.Thread(target=many, args=(advance,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [one.done for one in heard if isinstance(one, Work)] == [*range(401), 400]


def test_what_a_listener_raises_ends_the_work(heard: list[Event]) -> None:
    class StoppedError(Exception):
        pass

    def stop(event: Event) -> None:
        heard.append(event)
        if isinstance(event, Work) and event.done == 2:
            raise StoppedError

    with pytest.raises(StoppedError), listening(stop):
        list(track(range(5), "rows"))
    assert isinstance(heard[-1], Work)
    assert heard[-1].over


def test_text_of_strangers_is_visible_and_holds_no_credentials(heard: list[Event]) -> None:
    with listening(heard.append), counter("a\x1b[2J", 1):
        say("one\nforged s3://KEY:hush@b/p")
    assert [one.words if isinstance(one, Said) else one.label for one in heard[:2]] == [
        r"a\x1b[2J",
        r"one\nforged s3://b/p",
    ]
