"""The reconciler: compares the registry with the claims, and carries on every claim that is open.

Notices may come twice, late or never. What guarantees a run for each version is that this looks, again and again.
"""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from lmmpress.errors import UserError
from lmmpress.host.pod import this_pod
from lmmpress.printing.one_line import printable
from lmmpress.store.kinds import RECONCILER
from lmmpress.store.run_state import HeldError, hold
from lmmpress.trigger.carry_on import carry_on, found_again
from lmmpress.trigger.claims import Cause, Claim, ConflictError, State
from lmmpress.trigger.fire import Refused, fire
from lmmpress.trigger.trigger import Trigger
from lmmpress.trigger.watch import watch

BY = "reconciler"
_FOUND_AGAIN = timedelta(days=7)
"""How long after a run was lost the engine is asked for it."""


@dataclass(frozen=True)
class Reconciled:
    """What a round has done. `elsewhere`: another process does the same now, so that nothing was done.

    `fired` are the claims of the models' versions, `refused` what the policy did not allow, by model; `moved` the
    claims that are in another state than before; `faults` one line for each thing that could not be done.
    """

    elsewhere: bool = False
    fired: dict[str, Claim] = field(default_factory=dict)
    refused: dict[str, Refused] = field(default_factory=dict)
    moved: list[Claim] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def reconcile(trigger: Trigger) -> Reconciled:
    """One round under the store's lease: carry on every open claim, and fire every watched model.

    What cannot be done is a fault of the round, and the rest is done. Raises UserError if the store does not answer.
    """
    done = Reconciled()
    try:
        with hold(trigger.objects, RECONCILER, wait=False):
            _round(trigger, done)
    except HeldError:
        return Reconciled(elsewhere=True)
    return done


def this_process() -> str:
    """A name for this process, which tells people where a run was submitted."""
    return f"{this_pod().name or socket.gethostname()} {os.getpid()}"


def _round(trigger: Trigger, done: Reconciled) -> None:
    holder, now = this_process(), trigger.clock()

    def further(claim: Claim, carry: Callable[[Trigger, Claim, str], Claim] = carry_on) -> None:
        def go() -> None:
            after = carry(trigger, claim, holder)
            if after.state is not claim.state:
                done.moved.append(after)

        _try(done, claim.run, go)

    claims = trigger.claims.all(damaged=lambda error: done.faults.append(error.lines[0]))
    for claim in claims:  # first, so that runs that have ended make room
        if claim.is_open:
            further(claim)
        elif claim.state is State.lost and now - claim.events[-1].at < _FOUND_AGAIN:
            further(claim, found_again)
    for model in trigger.settings.models:

        def ask(model: str = model) -> None:
            answer = fire(trigger, model, by=BY, cause=Cause.reconciler)
            if isinstance(answer, Refused):
                done.refused[model] = answer
                return
            done.fired[model] = answer
            if answer.state is State.claimed and answer.sending is None:
                further(answer)

        _try(done, model, ask)
    done.faults.extend(watch(trigger))


def _try(done: Reconciled, what: str, act: Callable[[], None]) -> None:
    """Do something; note what goes wrong, because it must not keep the round from the rest."""
    try:
        act()
    except UserError as error:
        done.faults.append(f"{what}: {error.lines[0]}")
    except ConflictError:
        pass  # another process has changed the claim: the next round looks again
    except Exception as error:
        done.faults.append(printable(f"{what}: {type(error).__name__}: {error}"))
