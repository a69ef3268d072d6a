"""What the trigger asks of an engine."""

from dataclasses import dataclass
from typing import Literal, Protocol

from lmmpress.errors import UserError
from lmmpress.plan import Plan
from lmmpress.tasks.cluster_profile import Profile
from lmmpress.tasks.granularity import Choice
from lmmpress.trigger.claims import Sent

Phase = Literal["waiting", "running", "succeeded", "failed", "cancelled", "gone", "dead"]
"""`gone`: the engine does not know the run (now). `dead`: the run has certainly ended, without saying how."""


@dataclass(frozen=True)
class Order:
    """A run to be made: its name, its claim's key and attempt, the plan with the version as its model, the name that
    the compressed model is registered under, the cluster profile, and the address of MLflow. `as_asked`: the plan is
    still the one that the question names."""

    run: str
    key: str
    attempt: int
    plan: Plan
    compressed: str
    profile: Profile
    granularity: Choice
    tracking: str
    as_asked: bool = True


@dataclass(frozen=True)
class Seen:
    """How far a run is, and what the engine says about it."""

    phase: Phase
    said: str = ""


class RefusedError(UserError):
    """The engine refuses the run for good: the same order would be refused again. Nothing was made."""


class Engine(Protocol):
    """An engine. Every method raises UserError if the engine does not answer; that says nothing about the run."""

    settles: float
    """How many seconds after a request to make a run has been sent `find` certainly shows the run; 0 if the engine
    refuses a second run of one name by itself."""

    def find(self, order: Order) -> list[Sent]:
        """The runs of the order's name, oldest first."""
        ...

    def create(self, order: Order) -> Sent:
        """Make the run. RefusedError if the engine refuses it for good; any other error leaves open whether it was
        made."""
        ...

    def look(self, order: Order, sent: Sent) -> Seen:
        """How far a run is."""
        ...

    def cancel(self, order: Order, sent: Sent) -> None:
        """Ask for the end of a run; nothing happens if it has ended."""
        ...

    def reach(self, order: Order) -> str:
        """Check that the engine can be reached and would take this order; what it says of itself."""
        ...
