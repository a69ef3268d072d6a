"""The one function that all ways in call: it asks a question for a model, and claims it. Also retry and cancel."""

from dataclasses import dataclass
from datetime import datetime
from functools import partial

from lmmpress.errors import UserError
from lmmpress.trigger.carry_on import current, found_again
from lmmpress.trigger.claims import AGAIN, Cause, Claim, ConflictError, NotAllowedError, State, Wish
from lmmpress.trigger.policy import refusal
from lmmpress.trigger.texts import Text
from lmmpress.trigger.trigger import Trigger

_TRIES = 20


@dataclass(frozen=True)
class Refused:
    """The policy does not allow a run now, and why. Nothing was claimed."""

    text: Text

    @property
    def reason(self) -> str:
        """Why, in English."""
        return str(self.text)


def fire(
    trigger: Trigger, model: str, *, by: str, cause: Cause, why: str = "", plan: str | None = None
) -> Claim | Refused:
    """Claim the question that the model's version and a plan ask now, by default the model's default plan.

    The claim of a question that was asked before is returned as it is, whatever has come of it. Only the claim is
    made, which takes a request or two to MLflow and to the store: `lmmpress.trigger.carry_on` submits it, and so does
    the reconciler's next round. Raises UserError if the model is not watched, the plan not allowed or not valid, or
    MLflow or the store do not answer.
    """
    question = trigger.question(model, plan)
    policy, now = trigger.settings.watched(model).policy, trigger.clock()
    made = trigger.claims.create(
        question, by=by, cause=cause, why=why, now=now, admit=lambda claims: refusal(policy, claims, cause, now)
    )
    return Refused(made) if isinstance(made, Text) else made


def retry(trigger: Trigger, key: str, *, by: str, why: str) -> Claim:
    """Have a question tried again whose run failed, was cancelled or was lost.

    A lost run that the engine knows after all is carried on instead. Raises UserError if there is no such claim;
    NotAllowedError if it is not in one of these states, and if the policy allows no run now.
    """
    for _ in range(_TRIES):
        claim, now = current(trigger, key), trigger.clock()
        if claim.state not in AGAIN:
            raise NotAllowedError(Text("refused.not_again", run=claim.run, state=claim.state.text))
        try:
            again = found_again(trigger, claim, by)
            if again is not claim:
                return again
            return trigger.claims.change(
                claim,
                partial(_refusal_beside, trigger, claim, now),
                State.claimed,
                by=by,
                now=now,
                note=why,
                attempt=claim.attempt + 1,
                sent=None,
                sending=None,
                cancel=None,
                missing=None,
            )
        except ConflictError:
            continue
    raise UserError(f"claim {key} changes all the time; try again")


def _refusal_beside(trigger: Trigger, claim: Claim, now: datetime, others: tuple[Claim, ...]) -> Text | None:
    policy = trigger.settings.watched(claim.question.model).policy
    return refusal(policy, (*others, claim), Cause.shell, now)


def cancel(trigger: Trigger, key: str, *, by: str, why: str) -> Claim:
    """Note that the run of a claim is to be cancelled; `carry_on`, or the reconciler, does it. UserError if there is no
    such claim, NotAllowedError if it has ended."""
    for _ in range(_TRIES):
        claim, now = current(trigger, key), trigger.clock()
        if not claim.is_open:
            raise NotAllowedError(Text("refused.ended", run=claim.run, state=claim.state.text))
        if claim.cancel:
            return claim
        said = why or "cancelled"
        try:
            return trigger.claims.move(
                claim, by=by, now=now, note=f"to be cancelled: {said}", cancel=Wish(by, now, said)
            )
        except ConflictError:
            continue
    raise UserError(f"claim {key} changes all the time; try again")
