"""What tables and plots are made from: a form, and the outcomes that are known of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reproduce.catalogue import base
from reproduce.experiments import Known, Wanted, outcome_of
from reproduce.form import Form
from reproduce.outcome import Outcome
from reproduce.spread import Numbers, shown

Of = Callable[[int], Wanted]
"""An experiment for each seed."""


@dataclass(frozen=True)
class View:
    """A form, and what is known of its experiments."""

    form: Form
    known: Known

    def outcomes(self, make: Of) -> list[Outcome | None]:
        """The outcome of each seed."""
        return [outcome_of(make(seed), self.known) for seed in self.form.seeds]

    def numbers(self, make: Of, read: Callable[[Outcome], float | None]) -> Numbers:
        """A number of each seed."""
        return Numbers(tuple(None if one is None else read(one) for one in self.outcomes(make)))

    def accuracy(self, make: Of) -> Numbers:
        """The accuracy of the result on the gate split."""
        return self.numbers(make, lambda outcome: outcome.accuracy)

    def base(self, seed: int) -> Wanted:
        """The preset's own run."""
        return base(self.form, seed)

    @property
    def bases(self) -> list[Outcome]:
        """The preset's own runs that are known."""
        return [one for one in self.outcomes(self.base) if one]

    @property
    def rows(self) -> int:
        """The rows of the gate split; 0 if nothing is known."""
        return next((one.rows for one in self.bases), 0)


def markdown(heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)])


def millions(numbers: Numbers) -> str:
    """Parameters in millions."""
    return shown(Numbers(tuple(None if one is None else one / 1e6 for one in numbers.by_seed)), 2)
