"""A recorder beside the computation: MLflow never holds up or fails a run.

What is to be recorded is in the store before it is recorded, in the state of the run. So while MLflow does not answer,
the run goes on, and this process or a later one records all of it.
"""

import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lmmpress.errors import UserError
from lmmpress.host.patience import patience
from lmmpress.progress import say
from lmmpress.result import Result, RunInfo, StepResult

if TYPE_CHECKING:
    from lmmpress.tracking.lineage import Lineage

_AGAIN = 30.0  # seconds between two tries while MLflow does not answer


class Background:
    """A `Recorder` that hands each call to a thread, which makes the calls in their order, each until it succeeds.

    `take_over` waits for its call and raises its error: a wrong address is seen before anything is computed. All other
    calls return at once. `finish` waits for them. An error that is no `UserError` is a fault of ours; `finish` raises
    it.
    """

    def __init__(self, lineage: "Lineage") -> None:
        self._lineage = lineage
        self._calls: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._fault: Exception | None = None
        self._behind: UserError | None = None
        self._said = False
        self._thread: threading.Thread | None = None

    @property
    def behind(self) -> UserError | None:
        """Why MLflow does not have all calls yet; None if it has, or if none has failed."""
        return self._behind

    @property
    def patience(self) -> float:
        """Seconds to wait for the last calls: a server may be starting again, a file will not mend itself."""
        return patience() if self._lineage.tracking_uri.startswith(("http://", "https://")) else _AGAIN / 2

    def take_over(self, run_key: str) -> None:
        self._lineage.take_over(run_key)

    def attach(self, run_key: str) -> None:
        """The same as `take_over`, without waiting."""
        self._add(lambda: self._lineage.take_over(run_key))

    def begin(self, run: RunInfo) -> None:
        self._add(lambda: self._lineage.begin(run))

    def step(self, step: StepResult) -> None:
        self._add(lambda: self._lineage.step(step))

    def end(self, result: Result, checkpoint: Path | None) -> None:
        self._add(lambda: self._lineage.end(result, checkpoint))

    def then(self, call: Callable[["Lineage"], None]) -> None:
        """Make a call with the lineage after all calls before it."""
        self._add(lambda: call(self._lineage))

    def finish(self, seconds: float) -> bool:
        """Wait until all calls are made, at most so many seconds; whether they are. No call is made after this."""
        until = time.monotonic() + seconds
        with self._changed:
            self._changed.notify_all()  # a call that waits for its next try is made now
            while self._calls and not self._fault and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            self._stopped = True
            self._changed.notify_all()
            done = not self._calls
        if self._fault:
            raise self._fault
        return done

    def interrupted(self, error: BaseException | None = None) -> None:
        """Stop, and mark the run as KILLED, or as FAILED by `error`. Never raises."""
        self._stop()
        self._lineage.interrupted(error)

    def failed(self, run_key: str) -> None:
        """Stop, and mark the run of that key as FAILED. Never raises."""
        self._stop()
        self._lineage.failed(run_key)

    def _stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _add(self, call: Callable[[], None]) -> None:
        with self._changed:
            self._calls.append(call)
            self._changed.notify_all()
        if self._thread is None:
            # the thread says what it says to the listener of this context
            run = contextvars.copy_context().run
            self._thread = threading.Thread(target=run, args=(self._work,), name="lineage", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._calls and not self._stopped:
                    self._changed.wait()
                if self._stopped:
                    return
                call = self._calls[0]
            error = _tried(call)
            with self._changed:
                if error is None:
                    self._calls.popleft()
                    self._behind = None
                elif isinstance(error, UserError):
                    self._behind = error
                else:
                    self._fault = error
                self._changed.notify_all()
                if self._fault:
                    return
                if self._behind and not self._stopped:
                    if not self._said:
                        self._said = True
                        say(f"{error}; the run goes on, and the lineage is recorded when MLflow answers")
                    self._changed.wait(_AGAIN)


def _tried(call: Callable[[], None]) -> Exception | None:
    """Make a call; the error that it ended with."""
    try:
        call()
    except Exception as error:
        return error
    return None
