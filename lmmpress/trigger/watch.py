"""What the reconciler does beside the claims in each round: aliases that were moved, pins in stores, and notices."""

import threading
from collections.abc import Callable

from lmmpress.errors import UserError
from lmmpress.printing.one_line import printable
from lmmpress.trigger.drift import table
from lmmpress.trigger.notice_events import of_claims, of_table, of_version, version_name
from lmmpress.trigger.notices import Notice, Send, deliver, note, read_box, send_with_apprise
from lmmpress.trigger.pinning import pin
from lmmpress.trigger.promotion import compressed_of, settle
from lmmpress.trigger.trigger import Trigger

_sending = threading.Lock()


def watch(trigger: Trigger, send: Send = send_with_apprise) -> list[str]:
    """Look after what is in service and still needed, and send notices; one line for each thing that was not done.

    Raises nothing. Messages that take longer than the settings allow are sent while the caller goes on.
    """
    faults: list[str] = []
    for model in trigger.settings.models:
        compressed = compressed_of(model)
        _try(faults, f"{compressed} in service", lambda name=compressed: settle(trigger, name))  # type: ignore[misc]
        _try(faults, f"pins of {model}", lambda name=model: pin(trigger, name))  # type: ignore[misc]
        if trigger.settings.notices.addresses:
            _try(faults, f"notices of {model}", lambda name=model: _note(trigger, name))  # type: ignore[misc]
    if trigger.settings.notices.addresses:
        faults += _deliver(trigger, send)
    return faults


def _note(trigger: Trigger, model: str) -> None:
    """Note all notices of a model that are new."""
    settings, now = trigger.settings.notices, trigger.clock()
    link = settings.page or ""
    claims = trigger.claims.all(model)
    box = read_box(trigger.objects, model, now)[0]
    found: list[Notice] = list(of_claims(claims, box.since, now))
    version = None
    try:
        release = trigger.release(model)
    except UserError:
        pass  # the round says so
    else:
        version = version_name(release)
        since = box.seen.get(version, now)
        if trigger.settings.models[model].newest and release.created is not None:
            since = min(since, release.created)
        found += of_version(release, claims, since, settings.stale_days, now, link)
    found += of_table(model, table(trigger, compressed_of(model)), link)
    note(trigger, model, found, version)


def _deliver(trigger: Trigger, send: Send) -> list[str]:
    """Send in a thread of its own, one at a time, and wait for it only so long."""
    if not _sending.acquire(blocking=False):
        return []  # the messages of the round before are still being sent
    faults: list[str] = []
    over = threading.Event()

    def work() -> None:
        try:
            faults.extend(deliver(trigger, send))
        finally:
            _sending.release()
            over.set()

    threading.Thread(target=work, name="notices", daemon=True).start()
    over.wait(trigger.settings.notices.seconds)
    return list(faults)


def _try(faults: list[str], what: str, act: Callable[[], None]) -> None:
    try:
        act()
    except UserError as error:
        faults.append(f"{what}: {error.lines[0]}")
    except Exception as error:
        faults.append(printable(f"{what}: {type(error).__name__}: {error}"))
