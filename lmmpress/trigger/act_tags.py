"""Acts in MLflow: a tag of the registered version that an act is about, under the name that the act has in the store.

An act about a claim is told at the version of the original, which is there from the beginning, whatever becomes of the
run. MLflow is told when the act is done, and may be away: the store has every act.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from lmmpress.errors import UserError
from lmmpress.printing.one_line import printable
from lmmpress.tracking.values import tags
from lmmpress.trigger.acts import Act, acting
from lmmpress.trigger.claims import Claim
from lmmpress.trigger.fire import Refused
from lmmpress.trigger.promotion_rule import aliases_of
from lmmpress.trigger.trigger import Trigger

MOST = 50
"""How many acts a version has as tags; the oldest make room."""
BEGINS = "lmmpress.act."
"""How the names of these tags begin; what follows is the name of the act in the store."""
_LONGEST = 2000  # characters of a tag


class Doing:
    """An act while it is done. `untold` is why MLflow was not told of it, once it is done; empty if it was."""

    def __init__(self, trigger: Trigger) -> None:
        self._trigger = trigger
        self._said: list[str] = []
        self._version: tuple[str, str] | None = None
        self.untold = ""

    def said(self, outcome: str) -> None:
        """Note what came of it."""
        self._said.append(outcome)

    def about(self, model: str, version: str) -> None:
        """Note which registered version it is about. An act about none is told in the store alone."""
        self._version = (model, version)

    def came_to(self, answer: Claim | Refused) -> None:
        """Note what came of firing."""
        if isinstance(answer, Refused):
            self.said(f"refused: {answer.reason}")
        else:
            self.said(f"claim {answer.key} is {answer.state}")
            self.about_claim(answer)

    def about_claim(self, claim: Claim) -> None:
        """Note that it is about the version of the original that a claim asks for."""
        self.about(claim.question.model, claim.question.version)

    @property
    def outcome(self) -> str:
        """What came of it."""
        return "; ".join(self._said)

    def tell(self, name: str, act: Act) -> str:
        """Tell MLflow; why that could not be done, else nothing."""
        if self._version is None:
            return ""
        try:
            _tag(self._trigger, *self._version, name, act)
        except Exception as error:  # the act is done, whatever MLflow makes of it
            said = error.lines[0] if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            self.untold = printable(f"MLflow was not told: {said}")
        return self.untold


@contextmanager
def telling(trigger: Trigger, act: Act) -> Iterator[Doing]:
    """`acting`, and MLflow is told of the act once it is done. An act that fails is told in the store alone."""
    doing = Doing(trigger)
    with acting(trigger.objects, act, doing.tell) as said:
        yield doing
        said(doing.outcome)


def _tag(trigger: Trigger, model: str, version: str, name: str, act: Act) -> None:
    """Write the tag of an act, and remove the oldest where a version has too many."""
    aliases = aliases_of(trigger)
    aliases.tag(model, version, tags(**{f"act.{name}": printable(_line(act), _LONGEST)}))
    kept = sorted(tag for tag in aliases.tags_of(model, version) if tag.startswith(BEGINS))
    aliases.untag(model, version, kept[:-MOST])


def _line(act: Act) -> str:
    """An act in one line; when it was, its name says."""
    claim = f", claim {act.claim}" if act.claim and act.claim not in act.outcome else ""
    why = f" because: {act.why}" if act.why else ""
    return f"{act.what} by {act.by} ({act.role}){why}; {act.outcome}{claim}"
