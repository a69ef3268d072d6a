"""When Argo tries a pod again: by the cause of its end.

A pod that the cluster took away (preemption, eviction, a lost node, deletion) is always tried again. A task that
failed by itself or ran out of memory counts its failures in the store (`lmmpress/tasks/tries.py`), and ends with exit
code 3 when they are as many as the profile allows; so what the cluster took away is not counted. Exit code 2, the
user's fault, is never tried again. Argo itself counts the rest: pods that took too long, and failures of its own
containers.
"""

from typing import Any

from hera.workflows import RetryStrategy
from hera.workflows.models import Backoff

from lmmpress.tasks.cluster_profile import Retries
from lmmpress.tasks.tries import GIVEN_UP

TAKEN_AWAY = (
    "pod deleted",  # by hand, by Kueue, by the scheduler for a pod of higher priority, with its node
    "evict",
    "low on resource",
    "preempt",
    "node shutdown",
    "node was lost",
    "node had condition",
    "unexpectedadmissionerror",
    "exit code 143",  # SIGTERM: only the cluster sends it
)
"""Where Argo's message of a try matches one of these, the cluster took the pod away."""
COUNTED_BY_THE_TASK = ("1", "137")
"""Exit codes after which the task knows by itself how often it may be tried: a fault of lmmpress, no memory left."""
NEVER = ("2", str(GIVEN_UP))
_MOST = 1_000
"""Argo's own limit of tries. Without a limit it would not wait between two tries."""
_LONGEST = "10m"
"""The longest pause between two tries. Argo 3.5 and 3.6 have no such setting: there the pause goes on growing."""


def retry_strategy(retries: Retries) -> RetryStrategy:
    """The retries of one container."""
    taken = f"lastRetry.message matches '(?i){'|'.join(TAKEN_AWAY)}'"
    factor: Any = str(retries.factor)  # hera's models take any text here, which their types do not say
    own = f"lastRetry.exitCode in {_list(COUNTED_BY_THE_TASK)}"
    return RetryStrategy(
        limit=str(_MOST),
        retry_policy="Always",
        expression=(
            f"not (lastRetry.exitCode in {_list(NEVER)}) && ({taken} || {own} || asInt(retries) < {retries.count})"
        ),
        backoff=Backoff(duration=f"{retries.seconds}s", factor=factor, cap=_LONGEST),
    )


def _list(codes: tuple[str, ...]) -> str:
    return "[" + ", ".join(f"'{code}'" for code in codes) + "]"
