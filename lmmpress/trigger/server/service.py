"""What the server does: it takes hints, acts for people, shows models and claims, and works in its threads.

Nothing here knows of HTTP.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lmmpress.errors import UserError
from lmmpress.evaluation import comparison as whole
from lmmpress.printing.one_line import printable
from lmmpress.settings.faults import nearest
from lmmpress.store.kinds import HINTS
from lmmpress.trigger.act_tags import Doing, telling
from lmmpress.trigger.acts import Act, recorded
from lmmpress.trigger.carry_on import carry_on
from lmmpress.trigger.claims import Cause, Claim, NotAllowedError
from lmmpress.trigger.comparisons import Comparison, Kept, keep, part_to_keep
from lmmpress.trigger.drift import Table, table
from lmmpress.trigger.fire import Refused, cancel, fire, retry
from lmmpress.trigger.hints import Hint, forget, hinted
from lmmpress.trigger.hints import note as note_hint
from lmmpress.trigger.online import Appended, RowsError, append, read_rows
from lmmpress.trigger.progress import approve_stage
from lmmpress.trigger.promotion import InService, Serving, compressed_of, in_service, promote, roll_back
from lmmpress.trigger.promotion import Waiting as Unconfirmed
from lmmpress.trigger.promotion_rule import aliases_of, read_candidate
from lmmpress.trigger.reconcile import reconcile, this_process
from lmmpress.trigger.server.deliveries import Delivery
from lmmpress.trigger.server.logs import note
from lmmpress.trigger.server.metrics import Metrics
from lmmpress.trigger.server.secrets import Person, SigningSecrets, Tokens
from lmmpress.trigger.server.sign_in import SignIn
from lmmpress.trigger.server.views import ModelView, claim_view, version_view
from lmmpress.trigger.server.work import Rounds, Waiting
from lmmpress.trigger.settings import WatchedModel
from lmmpress.trigger.texts import Text
from lmmpress.trigger.trigger import Trigger

_MLFLOW = "mlflow"
"""Who asks where a webhook does."""
_FRESH = 5.0
"""Seconds for which an answer to "is the store there" holds."""


class UnknownError(Exception):
    """There is no such model, plan or claim."""


class Service:
    """The server without its HTTP. Methods may be called from any thread."""

    def __init__(self, trigger: Trigger, metrics: Metrics) -> None:
        settings = trigger.settings.server
        self.trigger, self.metrics = trigger, metrics
        self.tokens = Tokens(settings.tokens, self._complain)
        self.signing = SigningSecrets(settings.webhook_secrets, self._complain)
        self.sign_in = SignIn(settings.page, self.tokens, self._complain)
        self.holder = this_process()
        self._hints = Waiting("looking at a model", self._look)
        self._claims = Waiting("carrying a claim on", self._carry_on)
        self._rounds = Rounds(self._round, settings.reconcile_seconds)
        self._store = _Asked(lambda: trigger.objects.read(HINTS.name("none")))
        self._stopping = False
        metrics.pending.set_function(lambda: len(self._hints))

    def secrets(self) -> list[str]:
        """All secrets, so that logs can leave them out."""
        return [*self.tokens.values(), *self.signing.values(), *self.sign_in.secrets()]

    def start(self) -> None:
        """Start the threads. Hints that a killed server has left are worked off first."""
        self._hints.start()
        self._claims.start()
        threading.Thread(target=self._work_off, name="hints that lie there", daemon=True).start()
        self._rounds.start()

    def stop(self, seconds: float) -> None:
        """End the threads. What they have not done lies in the store: another server, or the next one, does it."""
        self._stopping = True
        end = time.monotonic() + seconds
        for thread in (self._hints, self._claims, self._rounds):
            if not thread.stop(max(0.0, end - time.monotonic())):
                note("stopped in the middle of its work; the store has it for the next server")

    @property
    def works(self) -> bool:
        """Whether all threads are there."""
        return self._hints.works and self._claims.works and self._rounds.works

    def faults(self) -> list[str]:
        """Why this server should get no requests now; nothing if it is ready."""
        found = [] if self.works and not self._stopping else ["stopping" if self._stopping else "a thread has ended"]
        fault = self._store.fault()
        return [*found, f"store: {fault}"] if fault else found

    def watches(self, delivery: Delivery) -> bool:
        """Whether a delivery is about a model that is watched."""
        return delivery.model in self.trigger.settings.models

    def take(self, delivery: Delivery) -> bool:
        """Note a delivery about a watched model in the store; False where its id came before with another body."""
        assert delivery.model is not None
        noted = note_hint(
            self.trigger.objects, Hint(delivery.id, delivery.sha256, delivery.model, delivery.version or "")
        )
        if noted == "other":
            return False
        self.metrics.deliveries.labels("noted" if noted == "new" else "repeated").inc()
        if noted == "new":
            self._hints.add(delivery.model)
        return True

    def fire(
        self, model: str, person: Person, why: str, plan: str | None, request: str, cause: Cause = Cause.rest
    ) -> Claim | Refused:
        """Fire for a person. UnknownError where the model is not watched, or the plan not allowed for it."""
        watched = self._watched(model)
        if plan is not None and plan not in watched.plans:
            raise UnknownError(f"model {model!r} has no plan {plan!r}; {nearest(plan, list(watched.plans))}")
        with self._acting(person, "fire", request, why, model=model) as doing:
            found = self._fire(model, person.name, cause, why, plan)
            doing.came_to(found)
        return found

    def cancel(self, key: str, person: Person, why: str, request: str) -> Claim:
        """Cancel a claim for a person. UnknownError where there is none, NotAllowedError where it has ended."""
        claim = self.claim(key)
        with self._acting(person, "cancel", request, why, claim.question.model, claim) as doing:
            claim = cancel(self.trigger, key, by=person.name, why=why)
            doing.said(f"claim {key} is to be cancelled")
        self._claims.add(key)
        return claim

    def retry(self, key: str, person: Person, why: str, request: str) -> Claim:
        """Have a claim tried again for a person. UnknownError where there is none, NotAllowedError where its
        state, or the policy, does not allow it."""
        claim = self.claim(key)
        with self._acting(person, "retry", request, why, claim.question.model, claim) as doing:
            claim = retry(self.trigger, key, by=person.name, why=why)
            doing.said(f"claim {key} is {claim.state}, attempt {claim.attempt}")
        self._claims.add(key)
        return claim

    def approve(self, key: str, stage: str, person: Person, why: str, request: str) -> str:
        """Approve a stage for a person; what came of it. UnknownError where there is no such claim, NotAllowedError
        where its run does not wait for that."""
        claim = self.claim(key)
        with self._acting(person, "approve", request, why, claim.question.model, claim) as doing:
            done = approve_stage(self.trigger, claim, stage, person.name)
            doing.said(done)
        return done

    def in_service(self, model: str) -> InService:
        """The version in service, and the promotion that waits for a second person. UnknownError where the model is
        not watched."""
        self._watched(model)
        return in_service(self.trigger, compressed_of(model))

    def promote(
        self, model: str, version: str, person: Person, why: str, seen: str | None, request: str
    ) -> Serving | Unconfirmed:
        """Put a version into service for a person. UnknownError where the model is not watched, NotAllowedError where
        the rule, or somebody who was quicker, does not allow it."""
        self._watched(model)
        with self._told(person, "promote", request, model):  # promotion writes its own line of the audit
            return promote(
                self.trigger, compressed_of(model), version, by=person.name, why=why, seen=seen, role=person.role
            )

    def roll_back(self, model: str, person: Person, why: str, seen: str | None, request: str) -> Serving:
        """Put the version before into service for a person. Errors as of `promote`."""
        self._watched(model)
        with self._told(person, "roll back", request, model):
            return roll_back(self.trigger, compressed_of(model), by=person.name, why=why, seen=seen, role=person.role)

    def comparisons(self, model: str, version: str) -> list[tuple[Kept, bool]]:
        """The comparisons of a compressed version with its original, the oldest first, each with whether it counts for
        the rule of promotion. UnknownError where there is no such model or version."""
        watched, compressed = self._watched(model), compressed_of(model)
        found = read_candidate(self.trigger, compressed, version, watched.promotion)
        if found.about is None:
            raise UnknownError(f"{compressed} has no version {version!r}")
        return list(found.comparisons)

    def take_comparison(
        self, model: str, found: whole.Comparison, person: Person, request: str
    ) -> tuple[str, Comparison]:
        """Keep a comparison for a person; the compressed version that it is of. NotAllowedError where its two
        checkpoints are not a registered version and what that was compressed from."""
        self._watched(model)
        compressed, part = compressed_of(model), part_to_keep(found)
        a, b = part.a.checkpoint, part.b.checkpoint
        version = aliases_of(self.trigger).made_of(compressed, b, a)
        if version is None:
            raise NotAllowedError(Text("refused.of_no_version", compressed=compressed, a=a[:12], b=b[:12]))
        with self._acting(person, "hand in a comparison", request, "", model=compressed) as doing:
            keep(self.trigger.objects, part, by=person.name, at=self.trigger.clock())
            doing.about(compressed, version)
            doing.said(
                f"version {version} lost {part.all.drop:.4f} on {part.data.rows} rows of data {part.data.digest[:20]}"
            )
        return version, part

    def append_rows(self, model: str, text: str, batch: str, person: Person, request: str) -> Appended:
        """Append rows of production for a person. UnknownError where the model is not watched, RowsError where one of
        the rows is wrong, or about another model."""
        self._watched(model)
        names = (model, compressed_of(model))
        rows = read_rows(text, "the body")
        if other := next((row.model for row in rows if row.model not in names), None):
            raise RowsError(f"the body: this takes rows of {names[0]} and {names[1]}, and none of {other!r}")
        with self._told(person, "append rows", request, model):
            return append(self.trigger, rows, batch)

    def online(self, model: str) -> Table:
        """The last seven days in production. UnknownError where the model is not watched."""
        self._watched(model)
        return table(self.trigger, compressed_of(model))

    def carry_on_soon(self, key: str) -> None:
        """Have a claim carried on by the thread that does so."""
        self._claims.add(key)

    def claim(self, key: str) -> Claim:
        """The claim with that key; UnknownError where there is none."""
        found = self.trigger.claims.get(key)
        if found is None:
            raise UnknownError("there is no claim with that key")
        return found

    def claims(self, model: str | None) -> list[Claim]:
        """All claims, or those of a model, newest first."""
        if model is not None:
            self._watched(model)
        return self.trigger.claims.all(model)[::-1]

    def acts(self, day: str) -> list[Act]:
        """What people have done on a day, in UTC."""
        return list(recorded(self.trigger.objects, day))

    def model(self, name: str) -> ModelView:
        """A watched model, with what the registry says of it. UnknownError where it is not watched."""
        watched = self._watched(name)
        compressed = compressed_of(name)
        newest = in_service = fault = None
        try:
            newest = self.trigger.registry.look_up(name, None)
            in_service = self.trigger.registry.look_up(compressed, watched.serving)
        except UserError as error:
            fault = "; ".join(error.lines)
        claims = self.trigger.claims.all(name)
        return ModelView(
            name=name,
            follows="newest" if watched.newest else f"@{watched.alias}",
            plans=sorted(watched.plans, key=lambda plan: plan != watched.default_plan),
            compressed=compressed,
            newest=version_view(newest),
            in_service=version_view(in_service),
            claim=claim_view(claims[-1]) if claims else None,
            fault=fault,
        )

    def _watched(self, model: str) -> WatchedModel:
        models = self.trigger.settings.models
        if model not in models:
            raise UnknownError(f"model {model!r} is not watched")
        return models[model]

    @contextmanager
    def _acting(
        self, person: Person, what: str, request: str, why: str, model: str, claim: Claim | None = None
    ) -> Iterator[Doing]:
        """Write down who does what, and what came of it: in the store, in MLflow, in the log and in the metrics."""
        at, key = self.trigger.clock().timestamp(), claim.key if claim else None
        act = Act(at=at, by=person.name, role=person.role, what=what, model=model, claim=key, why=why, request=request)
        with self._told(person, what, request, model, key), telling(self.trigger, act) as doing:
            if claim is not None:
                doing.about_claim(claim)
            yield doing
        if doing.untold:
            note("an act is in the store alone", logging.WARNING, what=what, fault=doing.untold, request=request)

    @contextmanager
    def _told(self, person: Person, what: str, request: str, model: str, claim: str | None = None) -> Iterator[None]:
        """Say in the log and in the metrics who does what, and what came of it."""
        outcome = "failed"
        try:
            yield
            outcome = "done"
        finally:
            self.metrics.acts.labels(what, outcome).inc()
            note(f"{what} by a person", by=person.name, model=model, claim=claim, outcome=outcome, request=request)

    def _fire(self, model: str, by: str, cause: Cause, why: str, plan: str | None) -> Claim | Refused:
        result = "failed"
        try:
            with self.metrics.timed(self.metrics.fire_seconds):
                found = fire(self.trigger, model, by=by, cause=cause, why=why, plan=plan)
            result = "refused" if isinstance(found, Refused) else "claim"
        finally:
            self.metrics.fires.labels(str(cause), result).inc()
        if isinstance(found, Refused):
            note("no run now", model=model, cause=str(cause), reason=found.reason)
        elif found.is_open:
            self._claims.add(found.key)
        return found

    def _look(self, model: str) -> None:
        """Work off a hint."""
        self._fire(model, _MLFLOW, Cause.webhook, "", None)

    def _carry_on(self, key: str) -> None:
        claim = self.trigger.claims.get(key)
        if claim is not None and claim.is_open:
            before, after = claim.state, carry_on(self.trigger, claim, self.holder)
            if after.state is not before:
                note("claim carried on", claim=key, model=after.question.model, state=str(after.state), run=after.run)

    def _work_off(self) -> None:
        try:
            for model in {hint.model for hint in hinted(self.trigger.objects)} & set(self.trigger.settings.models):
                self._hints.add(model)
        except Exception as error:  # the reconciler looks at every model by itself
            note("hints in the store not read", logging.WARNING, error)

    def _round(self) -> None:
        result = "failed"
        try:
            with self.metrics.timed(self.metrics.round_seconds):
                done = reconcile(self.trigger)
            result = "elsewhere" if done.elsewhere else "faults" if done.faults else "done"
            for fault in done.faults:
                note("reconciler", logging.WARNING, fault=fault)
            for claim in done.moved:
                note(
                    "claim carried on",
                    claim=claim.key,
                    model=claim.question.model,
                    state=str(claim.state),
                    run=claim.run,
                )
            if result == "done":
                self.metrics.last_round.set(time.time())
            forget(self.trigger.objects)
            claims = self.trigger.claims.all(damaged=lambda error: None)  # the round has said so
            self.metrics.count_claims((one.question.model, str(one.state)) for one in claims)
        finally:
            self.metrics.rounds.labels(result).inc()

    def _complain(self, fault: str) -> None:
        note("file of a secret", logging.WARNING, fault=fault)


class _Asked:
    """Whether something answers, asked once at a time however many want to know, and the answer kept for a while."""

    def __init__(self, ask: Callable[[], object]) -> None:
        self._ask = ask
        self._one = threading.Lock()
        self._at, self._fault = -_FRESH, ""

    def fault(self) -> str:
        """Why it does not answer; empty if it does."""
        if not self._one.acquire(blocking=False):
            return self._fault if time.monotonic() - self._at < 2 * _FRESH else "does not answer"
        try:
            if time.monotonic() - self._at >= _FRESH:
                try:
                    self._ask()
                    self._fault = ""
                except Exception as error:
                    self._fault = printable(str(error)) or type(error).__name__
                self._at = time.monotonic()
            return self._fault
        finally:
            self._one.release()
