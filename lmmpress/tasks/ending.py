"""Task `end`: after a workflow that has failed or was stopped. It says why, ends the run in MLflow, and gives the run's
lease back, so that another submission need not wait for it to run out."""

import json
from contextlib import suppress
from typing import Any

from lmmpress.errors import UserError
from lmmpress.printing.visible import visible
from lmmpress.progress import say
from lmmpress.store import Store
from lmmpress.store.kinds import RUNS
from lmmpress.store.run_state import read_state
from lmmpress.tasks.exit_codes import for_people
from lmmpress.tasks.lineage import lineage_of
from lmmpress.tasks.outcome import Outcome, table
from lmmpress.tasks.submission import open_submission

_LONGEST = 300


@for_people
def end(store: str, run: str, status: str, failures: Any = ()) -> Outcome:
    """End a submission whose workflow has ended with `status`. `run` is empty where not even `prepare` has ended.

    `failures` are Argo's, as a list or as JSON: objects with displayName, podName, message, phase. Whatever of this
    cannot be done is said; the task itself fails only where the store cannot be read.
    """
    rows = [[_text(one, "displayName"), _text(one, "podName"), _text(one, "message")] for one in _leaves(failures)]
    for part, pod, message in rows:
        say(f"{part} ({pod}): {message}")
    if not run:
        say(f"the workflow has ended before it had a run: {status}")
        return Outcome("", table(["part", "pod", "why"], rows), facts={"status": status})
    opened, asked = open_submission(store, run)
    if lineage := lineage_of(asked, run):
        lineage.failed(asked.key)
    freed = _release(opened, asked.key, run)
    decided = len(opened.history(asked.key))
    say(
        f"run {asked.key[:12]} has ended with {decided} decided steps: {status}"
        f"{'; its lease is given back' if freed else ''}; submit the plan again, and it carries on"
    )
    facts = {"status": status, "run_key": asked.key}
    return Outcome(opened.address(asked.original), table(["part", "pod", "why"], rows), {"steps": decided}, facts)


def _release(store: Store, key: str, holder: str) -> bool:
    """Give back the lease of a run if this submission holds it."""
    lease = read_state(store.objects, RUNS.name(key)).stored.lease
    if lease is None or lease.holder != holder:
        return False
    with suppress(UserError), store.run_state(key, holder=holder) as state:
        state.release()
    return True


def _leaves(failures: Any) -> list[dict[str, Any]]:
    """The failures that name a pod: the others only contain them. Argo quotes the list once or twice."""
    for _ in range(3):
        if not isinstance(failures, str):
            break
        try:
            failures = json.loads(failures)
        except ValueError:
            return []
    listed = [one for one in failures if isinstance(one, dict)] if isinstance(failures, list | tuple) else []
    return [one for one in listed if _text(one, "podName")] or listed


def _text(failure: dict[str, Any], key: str) -> str:
    return visible(str(failure.get(key) or ""))[:_LONGEST]
