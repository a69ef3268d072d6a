"""Follows a workflow: by watching it, and by the run's state in the store."""

import time
from collections.abc import Callable, Iterator

from lmmpress.argo.cluster import Workflows
from lmmpress.argo.nodes import ENDED, Part, in_line, parts_of, run_of, waiting_in
from lmmpress.argo.submit import Submitted
from lmmpress.errors import UserError
from lmmpress.following.run_in_store import RunInStore
from lmmpress.following.told import Told
from lmmpress.plan import Plan
from lmmpress.pods.cluster_reader import Node, UnseenError, at, text
from lmmpress.pods.failure import why_failed
from lmmpress.pods.waiting import phase_of, why_waiting
from lmmpress.printing.numbers import in_time
from lmmpress.printing.visible import visible

_UNTOLD = ("approval", "end")  # pods whose work is told otherwise
QUIET = 30.0  # seconds without news after which Kubernetes is asked why
PAUSE = 2.0  # seconds before a connection that broke is made again
_WATCH = 10  # seconds that one watch lasts; then the store is looked at, too
_SILENCE = 600.0  # seconds without any answer after which a workflow is no longer followed

Tell = Callable[[str], None]


def follow(workflows: Workflows, plan: Plan, submitted: Submitted, tell: Tell) -> str:
    """Tell what happens in a workflow, a line each, until it has ended; its phase.

    Raises UserError if it is deleted meanwhile, if the API does not answer for ten minutes, and at the end if it failed
    by a fault of the input or of the environment, with the task's own line.
    """
    return _Followed(workflows, plan, submitted, tell).to_its_end()


def explain(workflows: Workflows, submitted: Submitted, again: str, tell: Tell) -> None:
    """Tell why a workflow has failed: the pod and its reason, its last lines, and the command that carries the run
    on."""
    if failure := why_failed(workflows.cluster, submitted.place):
        tell(str(failure))
        for line in failure.lines:
            tell(f"  {line}")
    tell(f"what was computed is kept; carry the run on: {again}")


class _Followed:
    def __init__(self, workflows: Workflows, plan: Plan, submitted: Submitted, tell: Tell) -> None:
        self._workflows, self._submitted, self._plan, self._tell = workflows, submitted, plan, tell
        store = RunInStore(plan.store, {"workflow": submitted.name}) if plan.store else None
        self._told = Told(plan, tell, store)
        self._moved = self._asked = time.monotonic()
        self._seen: set[str] = set()
        self._reason = ""

    def to_its_end(self) -> str:
        for workflow in self._states():
            if self._look(workflow):
                self._moved = time.monotonic()
            if (phase := phase_of(workflow)) in ENDED:
                self._refuse_the_users_fault(workflow, phase)
                return phase
            if time.monotonic() - max(self._moved, self._asked) > QUIET:
                self._asked = time.monotonic()
                self._ask_why(workflow)
        raise AssertionError("states end with an ended workflow")

    def _states(self) -> Iterator[Node]:
        """The workflow now, and after each change. A connection that breaks is made again."""
        name, answered = self._submitted.name, time.monotonic()
        while True:
            try:
                workflow = self._workflows.get(name)
                answered = time.monotonic()
                gone = workflow is None
                if workflow is not None:
                    yield workflow
                    for kind, changed in self._workflows.watch(workflow, _WATCH):
                        gone = kind == "DELETED"
                        if gone or kind == "ERROR":  # an ERROR: the version is too old to go on from
                            break
                        yield changed
                if gone:
                    raise UserError(
                        f"workflow {name} was deleted; nothing is lost: submit the plan again, and it carries on"
                    )
            except UnseenError as error:
                if error.status in (401, 403) or time.monotonic() - answered > _SILENCE:
                    raise UserError(f"workflow {name} cannot be followed: {error}; it goes on") from None
                time.sleep(PAUSE)

    def _look(self, workflow: Node) -> bool:
        """Tell what is new; whether anything was."""
        parts = parts_of(workflow)
        news = self._told.look([part.pod for part in parts if part.pod.part not in _UNTOLD])
        for part in parts:
            failed = part.pod.phase == "Failed"
            untold = part.pod.part == "gate" and not self._told.reads_store and part.pod.phase == "Succeeded"
            if (failed or untold) and part.pod.name not in self._seen:
                self._seen.add(part.pod.name)
                self._tell(_failed(part) if failed else _decided(part))
                news = True
        for waiting in waiting_in(workflow):
            if waiting.node not in self._seen:
                self._seen.add(waiting.node)
                run = run_of(workflow) or "RUN"
                self._tell(
                    f"waits for an approval after stage {visible(waiting.stage)}: "
                    f"lmmpress approve {visible(run)} --store {self._plan.store}"
                )
                news = True
        return news

    def _ask_why(self, workflow: Node) -> None:
        """Tell why nothing moves, once."""
        if waiting_in(workflow):
            return
        if holder := in_line(workflow):
            reason = f"waits in line: workflow {visible(holder)} works on the same run"
        else:
            reason = str(why_waiting(self._workflows.cluster, self._submitted.place) or "")
        if reason and reason != self._reason:
            self._reason = reason
            self._tell(reason)

    def _refuse_the_users_fault(self, workflow: Node, phase: str) -> None:
        failed = [part for part in parts_of(workflow) if part.pod.phase == "Failed" and part.pod.part != "end"]
        if phase != "Succeeded" and failed and failed[-1].exit_code == 2:
            raise UserError(f"workflow {self._submitted.name}: {failed[-1].name}: {failed[-1].why}")
        if phase != "Succeeded" and not failed:
            self._tell(visible(text(at(workflow, "status", "message")) or f"{phase.lower()}, without a reason"))


def _failed(part: Part) -> str:
    pod = part.pod
    return f"{part.name}: failed ({in_time(pod.ended - pod.began)}): {part.why} (pod {pod.name})"


def _decided(part: Part) -> str:
    accuracy = at(part.result, "metrics", "accuracy")
    shown = f", accuracy {accuracy:.4f}" if isinstance(accuracy, int | float) else ""
    return f"{part.name.removesuffix(' gate')}: {visible(text(at(part.result, 'facts', 'decision')))}{shown}"
