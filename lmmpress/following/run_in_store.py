"""The run that a pipeline makes, read from its store: its plan, and the decisions so far."""

from collections.abc import Iterator
from pathlib import Path

from lmmpress.engine.algorithm import Planned, next_step
from lmmpress.engine.resume import read_history
from lmmpress.errors import UserError
from lmmpress.result import StepResult
from lmmpress.store import open_store
from lmmpress.store.kinds import RECORDS, stem
from lmmpress.store.records import SUBMISSION
from lmmpress.tasks.submission import Submission, read_submission

_MOST = 50  # of the newest submissions, those that are looked through


class RunInStore:
    """The run of the submission that says of its pipeline what `about` says, such as its id. Nothing is read before the
    first look."""

    def __init__(self, address: str, about: dict[str, str]) -> None:
        self.address, self._about = address, about
        self._passed: set[str] = set()
        self.submission: Submission | None = None
        self.steps: list[StepResult] = []

    def look(self) -> None:
        """Read the decisions anew. Raises UserError or OSError if the store cannot be read."""
        if "://" not in self.address and not Path(self.address).is_dir():
            raise UserError("this machine has no such directory")
        store = open_store(self.address, make=False)
        if self.submission is None:
            self.submission = next(self._submissions(), None)
        if (made := self.submission) is not None:
            self.steps = read_history(store, made.plan, made.original, store.history(made.key))

    @property
    def has_ended(self) -> bool:
        """Whether every stage has ended."""
        made = self.submission
        return made is not None and not isinstance(next_step(made.plan, made.original, self.steps), Planned)

    def _submissions(self) -> Iterator[Submission]:
        store = open_store(self.address, make=False)
        entries = sorted(store.objects.entries(f"{RECORDS.folder}/{SUBMISSION}"), key=lambda one: -one.modified)
        for entry in entries[:_MOST]:
            name = stem(entry.name).removeprefix(SUBMISSION)
            if name in self._passed:
                continue
            self._passed.add(name)
            try:
                found = read_submission(store, name)
            except UserError:  # of another version
                continue
            if self._about.items() <= found.about.items():
                yield found
