"""What the trigger pins in the stores of plans: the checkpoints in service and before, and what open claims need.

Only the stores that the settings name are written to: the address of a version comes from whoever registers it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from lmmpress.errors import UserError
from lmmpress.plan import digest_of
from lmmpress.printing.one_line import printable
from lmmpress.store import Store, open_store
from lmmpress.store.address import is_store
from lmmpress.store.pins import Pin, read_pin, write_pin
from lmmpress.trigger.aliases import Registered
from lmmpress.trigger.claims import Claim
from lmmpress.trigger.progress import folder_of, progress_of
from lmmpress.trigger.promotion import compressed_of
from lmmpress.trigger.promotion_rule import aliases_of
from lmmpress.trigger.serving_record import Standing, read_entries, replayed
from lmmpress.trigger.settings import EngineName
from lmmpress.trigger.trigger import Trigger, plan_in

_IN_STORE = re.compile(r"(?P<root>.+)/checkpoints/(?P<digest>[0-9a-f]{64})/?", re.DOTALL)
_RECENT = timedelta(days=1)
"""How long after its end a claim's store is looked at: the pin of the run is to be removed."""


def pin(trigger: Trigger, model: str) -> None:
    """Bring the pins of a watched model in order. UserError if MLflow or a store does not answer.

    No store is asked before a version was in service or a run has begun in it. Where a store, or the run of a claim,
    cannot be read, the rest is brought in order all the same.
    """
    claims = [claim for claim in trigger.claims.all(model) if _is_recent(trigger, claim)]
    standing = replayed(read_entries(trigger.objects, compressed_of(model)))
    stores = dict(_stores(trigger, model, claims, standing.last is not None))
    if not stores:
        return
    name = digest_of([trigger.settings.tracking, trigger.settings.store, model])[:24]
    there: dict[str, Pin] = {}
    faults: list[UserError | OSError] = []
    for root, store in stores.items():
        with _noted(faults):
            there[root] = read_pin(store.objects, name)
    wanted = {root: Pin() for root in there}
    _pin_service(trigger, compressed_of(model), standing, there, wanted)
    for claim in claims:
        if claim.is_open:
            with _noted(faults):  # it has no pin yet: what has one is not read again
                _pin_claim(trigger, claim, there, wanted)
    for root, pinned in wanted.items():
        with _noted(faults):
            write_pin(stores[root].objects, name, pinned)
    if faults:
        raise faults[0]


@contextmanager
def _noted(faults: list[UserError | OSError]) -> Iterator[None]:
    try:
        yield
    except (UserError, OSError) as error:
        faults.append(error)


def _is_recent(trigger: Trigger, claim: Claim) -> bool:
    """Whether a claim may have a pin: it is open, or its pin may not have been removed yet."""
    return claim.sent is not None and (claim.is_open or trigger.clock() - claim.events[-1].at < _RECENT)


def _stores(trigger: Trigger, model: str, claims: list[Claim], all_plans: bool) -> Iterator[tuple[str, Store]]:
    """The stores that are there of these claims' runs, and of all plans of the model, by their addresses."""
    names = {claim.question.plan_name for claim in claims if claim.question.pipeline != EngineName.local}
    roots: list[str] = []
    for name, allowed in trigger.settings.models[model].plans.items():
        if all_plans or name in names:
            with suppress(UserError):  # the round says what is wrong with a plan
                roots.append(plan_in(allowed.plan).store or "")
    for claim in claims:
        with suppress(UserError, OSError):  # whoever pins the claim says it
            if folder_of(trigger, claim) is not None and (progress := progress_of(trigger, claim)) is not None:
                roots.append(progress.store.root_address)
    for root in dict.fromkeys(roots):
        if root and is_store(root):
            yield _root(root), open_store(root, make=False)


def _pin_service(
    trigger: Trigger, compressed: str, standing: Standing, there: dict[str, Pin], wanted: dict[str, Pin]
) -> None:
    """Pin the checkpoint in service, and the one that rolling back leads to. MLflow is asked where this has changed."""
    named = printable(compressed, 100)
    uses = {standing.present: f"version {standing.present} of {named} is in service"} if standing.present else {}
    uses |= {one: f"rolling back {named} leads to version {one}" for one in standing.before}
    known = {reason: (root, digest) for root, pin in there.items() for digest, reason in pin.checkpoints.items()}
    for version, reason in uses.items():
        place = known.get(reason)
        if place is None:
            about = aliases_of(trigger).about(compressed, version)
            if about is None:  # no longer registered, so rolling back passes over it
                continue
            place = _place(about)
        if place is not None and place[0] in wanted:
            wanted[place[0]].checkpoints[place[1]] = reason
        if version != standing.present:
            return


def _pin_claim(trigger: Trigger, claim: Claim, there: dict[str, Pin], wanted: dict[str, Pin]) -> None:
    """Pin the run of a claim and its original, once the run has begun."""
    reason = f"claim {claim.run} is not at its end"
    for root, pin in there.items():
        if reason in pin.runs.values():  # a run does not change
            wanted[root].runs |= {key: why for key, why in pin.runs.items() if why == reason}
            wanted[root].checkpoints |= {key: why for key, why in pin.checkpoints.items() if why == reason}
            return
    progress = progress_of(trigger, claim)
    if progress is not None and (root := _root(progress.store.root_address)) in wanted:
        wanted[root].runs[progress.key] = reason
        wanted[root].checkpoints.setdefault(progress.original, reason)


def _place(about: Registered) -> tuple[str, str] | None:
    """The store in which a version's checkpoint is, and its digest."""
    found = _IN_STORE.fullmatch(about.address or "")
    return (_root(found["root"]), found["digest"]) if found else None


def _root(address: str) -> str:
    return address.rstrip("/") if "://" in address else str(Path(address).resolve())
