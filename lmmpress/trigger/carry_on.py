"""Carries a claim on: submits its run exactly once, follows it to its end, and cancels it if that is wanted.

Before a process asks an engine for a run, it notes in the claim that it is `sending`. Nobody asks again until none of
its requests can arrive any more and the engine's list certainly shows what they have made. So whoever finds a note, its
own included, looks in the list first. A process that is killed between any two lines here leaves at most some waiting.
"""

from datetime import datetime, timedelta
from typing import Any

from lmmpress.errors import UserError
from lmmpress.trigger.claims import Claim, ConflictError, Sending, Sent, State
from lmmpress.trigger.engines.interface import Order, RefusedError
from lmmpress.trigger.run_comparison import take_comparison
from lmmpress.trigger.trigger import Trigger

WINDOW = 120.0
"""How many seconds after its note a process may still ask the engine for the run."""
REQUEST = 120.0
"""How many seconds such a request can take to arrive, with all tries of the engine's client."""
LOST = 600.0
"""After how many seconds in which an engine answers, and does not know a run, the run is lost."""
_TRIES = 20


def carry_on(trigger: Trigger, claim: Claim, holder: str) -> Claim:
    """Take a claim as far as it can go now; the claim afterwards. `holder` names this process.

    It may be called by any number of processes at the same time, and may be killed anywhere. Raises UserError if the
    engine or the store do not answer; the claim then stays, and the next call goes on.
    """
    for _ in range(_TRIES):
        if not claim.is_open:
            return claim
        try:
            further = _Carrying(trigger, claim, holder).step()
        except ConflictError:
            further = current(trigger, claim.key)
        if further == claim:
            return claim
        claim = further
    return claim


def current(trigger: Trigger, key: str) -> Claim:
    """The claim as it is now; UserError if there is none of that key."""
    found = trigger.claims.get(key)
    if found is None:
        raise UserError(f"{trigger.objects.address}: there is no claim {key}; `lmmpress trigger ls` shows all")
    return found


def found_again(trigger: Trigger, claim: Claim, holder: str) -> Claim:
    """A claim whose run was lost: at work again, if the engine knows the run after all."""
    if claim.state is not State.lost or claim.sent is None:
        return claim
    phase = trigger.engine(claim.question).look(trigger.order(claim.question, claim.attempt), claim.sent).phase
    if phase in ("gone", "dead"):
        return claim
    return trigger.claims.move(
        claim, State.submitted, by=holder, now=trigger.clock(), note="the engine knows the run again", missing=None
    )


class _Carrying:
    """One step with a claim. A step changes the claim at most twice."""

    def __init__(self, trigger: Trigger, claim: Claim, holder: str) -> None:
        self._trigger, self._claim, self._holder = trigger, claim, holder
        self._engine = trigger.engine(claim.question)
        self._order = trigger.order(claim.question, claim.attempt)

    def step(self) -> Claim:
        if self._claim.sent is not None:
            return self._follow(self._order, self._claim.sent)
        if self._claim.sending is not None and (wait := self._someone_sends(self._claim.sending)):
            return wait
        if self._claim.cancel:
            return self._adopt() or self._move(State.cancelled, self._claim.cancel.why)
        if not self._order.as_asked:
            why = "the plan was changed before the run was submitted, so the question is another one now"
            return self._adopt() or self._move(State.cancelled, why)
        return self._send()

    def _someone_sends(self, sending: Sending) -> Claim | None:
        """The claim with the run that a process was about to send, or as it is while that may still appear; None once
        it cannot."""
        if found := self._adopt():
            return found
        if self._engine.settles == 0 and self._order.as_asked and not self._claim.cancel:
            return None  # a second request does no harm: the engine gives the run that has the name
        until = sending.at + timedelta(seconds=WINDOW + REQUEST + self._engine.settles)
        # the time was read before the list was: what is not in a list that was read after `until` was never made
        return self._claim if self._asked < until else None

    def _adopt(self) -> Claim | None:
        """The claim with the run of its name that the engine has; None if it has none."""
        self._asked = self._trigger.clock()
        found = self._engine.find(self._order)
        return self._submitted(found) if found else None

    def _send(self) -> Claim:
        began = self._trigger.clock()
        self._claim = self._changed(sending=Sending(self._holder, began))
        try:
            found = self._engine.find(self._order)
        except UserError:
            self._claim = self._changed(sending=None)  # nothing was sent
            raise
        if found:
            return self._submitted(found)
        if (self._trigger.clock() - began).total_seconds() > WINDOW:
            return self._claim  # this process was halted meanwhile, and others rely on the window
        try:
            made = self._engine.create(self._order)
        except RefusedError as error:
            return self._move(State.failed, str(error), sending=None)
        try:
            return self._submitted([made])
        except ConflictError:
            self._end_if_late(made)
            raise

    def _end_if_late(self, made: Sent) -> None:
        """End a run that this process has just made, where the claim meanwhile has another one or has ended: the
        request went out later than others rely on, and nobody would look for its run."""
        now = current(self._trigger, self._claim.key)
        awaited = now.is_open and now.sent is None and now.attempt == self._claim.attempt
        if not awaited and (now.sent is None or now.sent.id != made.id):
            self._engine.cancel(self._order, made)

    def _submitted(self, found: list[Sent]) -> Claim:
        """Note the run. There is one; were there more, the oldest counts, and the others are ended."""
        for extra in found[1:]:
            self._engine.cancel(self._order, extra)
        note = f"{len(found) - 1} more runs of this name were there, and are cancelled" if found[1:] else ""
        return self._move(State.submitted, note, sent=found[0], sending=None)

    def _follow(self, order: Order, sent: Sent) -> Claim:
        if self._claim.cancel:
            self._engine.cancel(order, sent)
        seen = self._engine.look(order, sent)
        if seen.phase == "gone":
            return self._missing(seen.said)
        wish = self._claim.cancel
        if seen.phase == "dead":
            return self._move(State.cancelled, wish.why) if wish else self._move(State.lost, seen.said)
        if seen.phase in ("succeeded", "failed", "cancelled"):
            state, said = State(seen.phase), seen.said
            if wish and state is State.failed:  # so Kubeflow calls what it was told to end
                state = State.cancelled
            if state is State.cancelled:
                said = wish.why if wish else said
            elif state is State.succeeded and order.plan.compare:
                said = "; ".join(filter(None, (said, take_comparison(self._trigger, self._claim))))
            return self._move(state, said, missing=None)
        if seen.phase == "running" and self._claim.state is not State.running:
            return self._move(State.running, seen.said, missing=None)
        return self._changed(missing=None) if self._claim.missing else self._claim

    def _missing(self, said: str) -> Claim:
        now, since = self._trigger.clock(), self._claim.missing
        if since is None:
            return self._changed(missing=now)
        if (now - since).total_seconds() < LOST:
            return self._claim
        if self._claim.cancel:
            return self._move(State.cancelled, self._claim.cancel.why)
        return self._move(State.lost, said or f"{self._claim.question.pipeline} no longer knows the run")

    def _move(self, state: State, note: str, **changes: Any) -> Claim:
        return self._trigger.claims.move(self._claim, state, by=self._holder, now=self._now(), note=note, **changes)

    def _changed(self, **changes: Any) -> Claim:
        return self._trigger.claims.move(self._claim, by=self._holder, now=self._now(), **changes)

    def _now(self) -> datetime:
        return self._trigger.clock()
