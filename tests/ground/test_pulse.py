"""When progress is reported where nobody watches, by a clock that the tests set."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from itertools import pairwise
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmmpress.progress import Outlook, Said, at_step, counter, doing, listening, part, track, transfer
from lmmpress.progress.lines import in_words
from lmmpress.progress.pulse import APART, EVERY, Pulse, Report


class Watch:
    """A pulse whose clock is set by `passes`, and what it has said: the second, and the line."""

    def __init__(self) -> None:
        self.now = 0.0
        self.reports: list[Report] = []
        self.lines: list[tuple[float, str]] = []
        self.pulse = Pulse(self._speak, clock=lambda: self.now, beats=False)

    def _speak(self, report: Report) -> None:
        self.reports.append(report)
        self.lines.append((self.now, in_words(report)))

    def passes(self, seconds: float) -> None:
        """Let time pass, and the pulse look when it wants to, as its thread does."""
        end = self.now + seconds
        while (wait := self.pulse.look()) is not None and self.now + wait <= end:
            self.now += wait
        self.now = end


@pytest.fixture
def watch() -> Iterator[Watch]:
    found = Watch()
    with listening(found.pulse):
        yield found


def test_a_long_piece_of_work_is_told_at_its_beginning_every_30_seconds_and_at_its_end(watch: Watch) -> None:
    with part("distill"), counter("distil", 48) as advance:
        for _ in range(48):
            watch.passes(2)
            advance(1)
    assert watch.lines == [
        (0, "distill"),
        (30, "distill: distil 14 of 48 (29 %), 30/min, 1:06 left"),
        (60, "distill: distil 29 of 48 (60 %), 30/min, 0:36 left"),
        (90, "distill: distil 44 of 48 (91 %), 30/min, 0:06 left"),
        (96, "distill: done in 1:36"),
    ]


def test_it_is_told_while_one_update_takes_minutes(watch: Watch) -> None:
    """What is computed since the last event counts for the time that is left, never below zero."""
    with part("distill"), counter("distil", 3) as advance:
        watch.passes(60)
        advance(1)
        watch.passes(150)
    assert watch.lines == [
        (0, "distill"),
        (30, "distill: distil 0 of 3 (0 %)"),
        (60, "distill: distil 0 of 3 (0 %)"),
        (90, "distill: distil 1 of 3 (33 %), 1.0/min, 1:30 left"),
        (120, "distill: distil 1 of 3 (33 %), 1.0/min, 1:00 left"),
        (150, "distill: distil 1 of 3 (33 %), 1.0/min, 0:30 left"),
        (180, "distill: distil 1 of 3 (33 %), 1.0/min, 0:00 left"),
        (210, "distill: distil 1 of 3 (33 %), 1.0/min, 0:00 left"),
        (210, "distill: done in 3:30"),
    ]


def test_it_is_told_while_nothing_is_counted(watch: Watch) -> None:
    with part("prune"):
        watch.passes(40)
    assert watch.lines == [(0, "prune"), (30, "prune, 0:30 so far"), (40, "prune: done in 0:40")]


def test_short_parts_do_not_fill_the_log(watch: Watch) -> None:
    for number in range(100):
        with part(f"part {number}"):
            for _ in track(range(4), "rows"):
                watch.passes(0.25)
    assert watch.now == 100
    assert len(watch.lines) <= 100 / APART + 1
    times = [at for at, _ in watch.lines]
    assert all(after - before >= APART for before, after in pairwise(times))


def test_a_part_shorter_than_the_interval_has_one_line(watch: Watch) -> None:
    with part("importance"):
        watch.passes(20)
    with part("prune"):
        watch.passes(29)
    assert watch.lines == [(0, "importance"), (20, "prune")]


def test_a_part_within_another_is_told_and_the_outer_one_not_again(watch: Watch) -> None:
    with part("stage"):
        watch.passes(6)
        with part("importance"):
            watch.passes(6)
        watch.passes(6)
        with part("prune"):
            watch.passes(6)
        watch.passes(29)
    assert [line for _, line in watch.lines] == [
        "stage",
        "importance",
        "prune",
        "stage, 0:48 so far",
        "stage: done in 0:53",
    ]


def test_work_of_no_part_is_told_only_if_it_is_long(watch: Watch) -> None:
    """A command that is refused prints its error and nothing else."""
    with doing("evaluate"), transfer("fetching", 10_000_000) as advance:
        watch.passes(29)
        advance(4_000_000)
    with transfer("sending", 90_000_000) as advance:
        for _ in range(40):
            watch.passes(1)
            advance(1_000_000)
    assert watch.lines == [(59, "sending 29.00 MB of 90.00 MB (32 %), 1.00 MB/s, 1:00 left")]


def test_a_changed_label_begins_anew(watch: Watch) -> None:
    with doing("starting") as show:
        watch.passes(31)
        show("prepare")
        watch.passes(40)
    assert watch.lines == [(30, "starting, 0:30 so far"), (61, "prepare, 0:30 so far")]


def test_the_run_has_at_most_so_long_to_go(watch: Watch) -> None:
    seen = Outlook("block, step 2 of 4", usual={"distill": 100.0}, later={"distill": 5000.0})
    with at_step(seen):
        with part("distill"):
            watch.passes(30)
            with counter("all", 10) as advance:
                watch.passes(20)
                advance(5)
                watch.passes(10)
        with part("load"):
            watch.passes(1)
    assert [line for _, line in watch.lines] == [
        "block, step 2 of 4: distill, about 1:40 left; run: at most 1 h 25 min to its last step",
        "block, step 2 of 4: distill, 0:30 so far, about 1:10 left; run: at most 1 h 24 min to its last step",
        "block, step 2 of 4: distill: all 5 of 10 (50 %), 15/min, 0:10 left; run: at most 1 h 23 min to its last step",
        "block, step 2 of 4: distill: done in 1:00",
    ]
    assert [one.run_seconds_left for one in watch.reports] == [5100, 5070, 5010, None]


def test_nothing_is_told_after_the_end_whatever_ends_it(watch: Watch) -> None:
    kept: list[Iterator[int]] = []
    with pytest.raises(ZeroDivisionError), part("distill"):
        generator = cast(Generator[int], track(range(3), "rows"))
        next(generator)
        kept.append(generator)  # as a traceback keeps it, that somebody looks at
        _ = 1 / 0
    assert watch.pulse.look() is not None, "the generator has not ended"
    said: list[Report] = []
    pulse = Pulse(said.append, beats=False)
    with listening(pulse):
        generator = cast(Generator[int], track(range(3), "rows"))
        next(generator)
        kept.append(generator)
    assert pulse.look() is None, "it ends with its listener"
    kept.clear()  # which closes it
    del generator
    assert said == []


def test_a_log_that_nobody_reads_ends_no_work() -> None:
    def broken(report: Report) -> None:
        raise BrokenPipeError

    with listening(Pulse(broken, beats=False)), part("prune"):
        pass


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 3)), max_size=20))
def test_there_is_a_line_every_30_seconds_whatever_happens(events: list[tuple[float, int]]) -> None:
    watch = Watch()
    with listening(watch.pulse), part("distill"), counter("distil", 100) as advance:
        for seconds, done in events:
            watch.passes(seconds)
            advance(done)
    times = [at for at, _ in watch.lines]
    assert all(after - before <= EVERY + 1e-6 for before, after in zip(times, [*times[1:], watch.now], strict=True))


def test_a_thread_speaks_while_there_is_work_and_ends_with_it() -> None:
    spoke = threading.Event()
    with listening(Pulse(lambda report: spoke.set() if report.seconds else None, every=0.01, apart=0)):
        with part("prune"):
            assert spoke.wait(30)
            (thread,) = (one for one in threading.enumerate() if one.name == "progress")
        thread.join(30)
        assert not thread.is_alive()


def test_a_process_that_is_forked_says_nothing_and_ends() -> None:
    said: list[Report] = []
    with listening(Pulse(said.append)), part("distill"), counter("distil", 2) as advance:
        child = os.fork()
        if child == 0:
            advance(1)
            with part("prune"):
                os._exit(len(said))
        assert os.waitpid(child, 0)[1] == 1 << 8, "what its parent had said before"
    assert len(said) == 1


PROCESS = """
import sys, time
from lmmpress.progress import counter, listening, part, say
from lmmpress.progress import terminal
from lmmpress.progress.pulse import Pulse
terminal.Pulse = lambda speak: Pulse(speak, every=0.2, apart=0.1)
try:
    with listening(terminal.on_terminal()), part("distill"), counter("distil", 2) as advance:
        say("begun")
        time.sleep(60)
except KeyboardInterrupt:
    print("stopped", file=sys.stderr, flush=True)
    time.sleep(1)
"""


def test_a_real_process_writes_whole_lines_into_a_pipe_and_none_after_ctrl_c() -> None:
    process = subprocess.Popen([sys.executable, "-c", PROCESS], stderr=subprocess.PIPE, text=True, encoding="utf-8")
    assert process.stderr is not None
    lines = [process.stderr.readline() for _ in range(5)]
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read().splitlines()
    assert process.wait(30) == 0
    assert lines[:2] == ["distill\n", "begun\n"]
    assert set(lines[2:]) == {"distill: distil 0 of 2 (0 %)\n"}
    assert rest[-1] == "stopped"
    assert all(re.fullmatch(r"distill: (distil 0 of 2 \(0 %\)|done in \d+:\d\d)", line) for line in rest[:-1])


def test_what_is_said_is_no_part(watch: Watch) -> None:
    watch.pulse(Said("a line"))
    assert (watch.lines, watch.pulse.look()) == ([], None)
