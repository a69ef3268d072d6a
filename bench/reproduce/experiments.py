"""An experiment is data: a preset, settings that change its plan, a seed. What it is named by follows from these."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from lmmpress.plan import digest_of
from reproduce.outcome import Outcome

Kind = Literal["run", "script", "compared"]
"""What makes an experiment: `lmmpress run`; a script that prints an outcome; the test split and the speed of some
checkpoints, each beside the first by `lmmpress compare`, in which the two take turns."""


@dataclass(frozen=True)
class Experiment:
    """One experiment. `settings` are those of `--set`; `small` asks for the small copy of the preset's data.

    `script` is the module of an experiment of kind `script`, such as one for a pruner by others: it is called as
    `python -m MODULE PLAN.yaml --set KEY=VALUE ...` and prints an `Outcome` as JSON.

    `alone`: nothing else may run beside it, since it measures speed. `checkpoints` are what an experiment of kind
    `compared` measures: a name and a digest each.
    """

    preset: str
    seed: int
    settings: tuple[str, ...] = ()
    kind: Kind = "run"
    small: bool = False
    checkpoints: tuple[tuple[str, str], ...] = ()
    script: str = ""

    @property
    def key(self) -> str:
        """The name of its folder: the preset, and a hash of all that it is."""
        return f"{self.preset}-{digest_of(json.loads(json.dumps(asdict(self))))[:16]}"

    @property
    def alone(self) -> bool:
        return self.kind == "compared"


@dataclass(frozen=True)
class Later:
    """An experiment that follows from the outcomes of others: `make` takes these in the order of `needs`."""

    needs: tuple["Wanted", ...]
    make: Callable[[Sequence[Outcome]], Experiment]


Wanted = Experiment | Later
Known = Callable[[Experiment], Outcome | None]
"""The outcome of an experiment that has been made; None of one that has not."""


def resolved(wanted: Wanted, known: Known) -> Experiment | None:
    """The experiment itself; None if one that it needs has no outcome yet."""
    if isinstance(wanted, Experiment):
        return wanted
    needed = [outcome_of(one, known) for one in wanted.needs]
    found = [one for one in needed if one is not None]
    return wanted.make(found) if len(found) == len(needed) else None


def outcome_of(wanted: Wanted, known: Known) -> Outcome | None:
    """Its outcome; None if there is none yet."""
    experiment = resolved(wanted, known)
    return known(experiment) if experiment else None
