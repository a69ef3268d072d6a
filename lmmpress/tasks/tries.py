"""How often a task was tried, where the engine tells it: a task counts its own failures, and asks for less memory.

Argo counts every try of a pod alike, also those that the cluster took away. So a task that fails by itself notes that
in the store, and the next try notes it for one that was killed for its memory. When the notes are more than the retries
that the profile allows, the task ends with GIVEN_UP, after which it is not tried again.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from lmmpress.errors import UserError
from lmmpress.host.pod import WORKFLOW
from lmmpress.printing.visible import visible
from lmmpress.store import Store, open_store
from lmmpress.store.records import TRIED

TRY, RETRIES = "LMMPRESS_TRY", "LMMPRESS_RETRIES"
"""The number of this try, from 0, and how many retries the profile allows."""
LAST_EXIT, LAST_MESSAGE = "LMMPRESS_LAST_EXIT", "LMMPRESS_LAST_MESSAGE"
"""How the try before ended, in the engine's words."""
SMALLER = "LMMPRESS_SMALLER"
"""How often to halve the micro-batch of distillation: once for each try that ran out of memory."""
GIVEN_UP = 3
"""The exit code of a task that was tried as often as allowed."""
_OURS, _KILLED = 1, "137"


@dataclass(frozen=True)
class _Tries:
    """The tries of one task: `run` is its submission, `name` the task's within its workflow, `number` that of this
    try."""

    store: Store
    run: str
    name: str
    number: int
    allowed: int

    def note(self, number: int, why: Literal["memory", "failed"]) -> None:
        self.store.write_record(self._record(number), {"why": why, "run": self.run})

    def failures(self) -> list[str]:
        """Why the tries failed that count."""
        found = [self.store.read_record(self._record(number)) for number in range(self.number + 1)]
        return [str(one["why"]) for one in found if one and "why" in one]

    def _record(self, number: int) -> str:
        return f"{TRIED}{self.name}-{number}"


@contextmanager
def counted(store: str, run: str, *task: str | int) -> Iterator[None]:
    """Run a task that ends by `sys.exit` as one of its tries; `run` is its submission, empty before there is one, and
    `task` its part, and stage and index if it has them.

    Nothing is counted where the environment does not tell the number of the try.
    """
    tries = _tries(store, run, task)
    if tries is None:
        yield
        return
    if tries.number and os.environ.get(LAST_EXIT) == _KILLED and "OOM" in os.environ.get(LAST_MESSAGE, ""):
        tries.note(tries.number - 1, "memory")
    failures = tries.failures() if tries.number else []
    if len(failures) > tries.allowed:
        _give_up(failures)
    if smaller := failures.count("memory"):
        os.environ[SMALLER] = str(smaller)
    try:
        yield
    except SystemExit as error:
        told = f"{type(error.__context__).__name__} {error.__context__}"
        out_of_memory = "OutOfMemoryError" in told or "OOMKilled" in told  # the latter of a training's node
        if error.code != _OURS and not out_of_memory:
            raise
        with suppress(UserError, OSError):  # the first error counts
            tries.note(tries.number, "memory" if out_of_memory else "failed")
            failures = tries.failures()
        if len(failures) > tries.allowed:
            _give_up(failures)
        sys.exit(_OURS)


def halvings() -> int:
    """How often this try halves the micro-batch."""
    return int(os.environ.get(SMALLER) or 0)


def _tries(store: str, run: str, task: tuple[str | int, ...]) -> _Tries | None:
    number, allowed, workflow = (os.environ.get(name, "").strip() for name in (TRY, RETRIES, WORKFLOW))
    if not (number.isdecimal() and allowed.isdecimal() and workflow):
        return None
    return _Tries(open_store(store), run, "-".join(map(str, (workflow, *task))), int(number), int(allowed))


def _give_up(failures: list[str]) -> None:
    memory = failures.count("memory")
    what = f"{memory} times for its memory: raise limits.memory in the cluster profile" if memory else "see its log"
    print(visible(f"error: failed {len(failures)} times ({what}); not tried again"), file=sys.stderr)
    sys.exit(GIVEN_UP)
