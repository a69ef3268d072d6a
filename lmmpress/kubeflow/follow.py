"""Follows a run on Kubeflow: by its state in the store and its pods; where these are not seen, by Kubeflow's tasks."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lmmpress.errors import UserError
from lmmpress.following.run_in_store import RunInStore
from lmmpress.following.told import Told
from lmmpress.kubeflow.submit import AnsweredError, Submitted, UnauthorizedError, explained
from lmmpress.kubeflow.tasks_seen import tasks_of
from lmmpress.plan import Plan
from lmmpress.pods.cluster_reader import Cluster, UnseenError
from lmmpress.pods.failure import why_failed
from lmmpress.pods.seen_pods import PodSeen, pods_of
from lmmpress.pods.waiting import ENDED as WORKFLOW_ENDED
from lmmpress.pods.waiting import Place, phase_of, why_waiting, workflow_of
from lmmpress.tasks.cluster_profile import Profile

if TYPE_CHECKING:
    from kfp import Client

ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
PAUSE = 10.0  # seconds between two looks
QUIET = 30.0  # seconds without news after which Kubernetes is asked why
LONG = 300.0  # seconds without news after which a pod is named that is at work
_UNREPORTED = 120.0  # seconds that Kubeflow may take to learn that Argo has ended a run
_SILENCE = 600.0  # seconds without any answer after which a run is no longer followed

Tell = Callable[[str], None]


def follow(
    client: "Client", profile: Profile, plan: Plan, run: Submitted, tell: Tell, cluster: Cluster | None = None
) -> str:
    """Tell what happens in a run, a line each, until it has ended; its last state, as Kubeflow names it.

    Failed requests are repeated for ten minutes. Raises UserError if the run is deleted meanwhile.
    """
    return _Followed(client, profile, plan, run, tell, cluster).to_its_end()


class _Followed:
    def __init__(
        self, client: "Client", profile: Profile, plan: Plan, run: Submitted, tell: Tell, cluster: Cluster | None
    ) -> None:
        self._client, self._kubeflow, self._run, self._tell = client, profile.kubeflow, run, tell
        self._cluster = cluster
        namespace = self._kubeflow.namespace or self._kubeflow.system
        self._place = Place(namespace, f"pipeline/runid={run.run_id}", self._kubeflow.system)
        store = RunInStore(plan.store, {"pipeline_run": run.run_id}) if plan.store else None
        self._told = Told(plan, tell, store)
        self._state = "PENDING"
        self._tasks: dict[str, str] = {}
        self._answered = self._moved = self._asked = time.monotonic()
        self._reason = ""

    def to_its_end(self) -> str:
        while True:
            self._look()
            if self._state in ENDED:
                return self._state
            if self._cluster and time.monotonic() - max(self._moved, self._asked) > QUIET:
                self._asked = time.monotonic()
                self._ask_why(self._cluster)
                if self._state in ENDED:
                    return self._state
            time.sleep(PAUSE)

    def _look(self) -> None:
        """Tell what is new."""
        answer = self._ask_kubeflow()
        pods = self._pods()
        news = self._told.look(pods)
        if answer is not None:
            if not pods:
                news |= self._tell_tasks(answer)
            state = str(answer.state or "PENDING")
            news |= state != self._state
            self._state = state
        if news:
            self._moved = time.monotonic()

    def _ask_kubeflow(self) -> Any:
        """Kubeflow's answer about the run; None if it does not answer now."""
        try:
            with explained(self._kubeflow):
                answer = self._client.get_run(self._run.run_id)
        except UnauthorizedError:
            raise
        except UserError as error:
            if isinstance(error, AnsweredError) and error.status == 404:
                raise UserError(
                    f"run {self._run.run_id} was deleted in Kubeflow; nothing is lost: submit the plan again, and it "
                    "carries on"
                ) from None
            if time.monotonic() - self._answered > _SILENCE:
                raise
            return None
        self._answered = time.monotonic()
        return answer

    def _pods(self) -> list[PodSeen]:
        """The pods of the run; none if they are not shown to us."""
        if self._cluster is None:
            return []
        try:
            return pods_of(self._cluster, self._place.namespace, self._place.selector)
        except UnseenError:
            return []

    def _tell_tasks(self, answer: Any) -> bool:
        """Tell the tasks that have ended, by Kubeflow's answer; whether any is new."""
        found = tasks_of(answer, self._run.tasks)
        ended = {name: state for name, state in found.items() if state not in ("RUNNING", "PENDING")}
        new = {name: state for name, state in ended.items() if self._tasks.get(name) != state}
        for name, state in new.items():
            self._tell(f"{name}: {state.lower()}")
        self._tasks |= new
        return bool(new)

    def _ask_why(self, cluster: Cluster) -> None:
        """Tell why nothing moves, once. A run that Argo has ended ends here too, where nobody tells Kubeflow."""
        reason = why_waiting(cluster, self._place, self._state)
        quiet = time.monotonic() - self._moved
        if reason is not None and str(reason) != self._reason and (reason.mend or quiet > LONG):
            self._reason = str(reason)
            self._tell(self._reason)
        if quiet > _UNREPORTED:
            try:
                phase = phase_of(workflow_of(cluster, self._place))
            except UnseenError:
                return
            if phase in WORKFLOW_ENDED:
                self._state = "SUCCEEDED" if phase == "Succeeded" else "FAILED"


def explain(profile: Profile, run: Submitted, cluster: Cluster | None, again: str, tell: Tell) -> None:
    """Tell why a run has failed: the pod and its reason, its last lines, and the command that carries the run on."""
    place = Place(
        profile.kubeflow.namespace or profile.kubeflow.system, f"pipeline/runid={run.run_id}", profile.kubeflow.system
    )
    failure = why_failed(cluster, place) if cluster else None
    if failure is None:
        tell(f"Kubernetes gives no reason here; the logs of its tasks are at {run.link}")
    else:
        tell(str(failure))
        for line in failure.lines:
            tell(f"  {line}")
    tell(f"what was computed is kept; carry the run on: {again}")
