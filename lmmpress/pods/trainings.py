"""A distillation on several nodes of the cluster: a TrainJob of Kubeflow Trainer, begun, followed and ended."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from lmmpress.errors import AwayError, UserError
from lmmpress.host.patience import patience
from lmmpress.pods.cluster_reader import Cluster, Node, UnseenError, at, mappings, text
from lmmpress.pods.failure import Failure, failure_of
from lmmpress.pods.seen_pods import PodSeen, pods_of
from lmmpress.pods.waiting import Place, Reason, last_warning, why_pods_wait

API = "/apis/trainer.kubeflow.org/v1alpha1"
PAUSE = 5.0  # seconds between two looks
FAULT = 2
"""The exit code of a fault of the input, which no new try mends."""
_JOBS = "jobset.sigs.k8s.io/jobset-name"
_NUMBER = "batch.kubernetes.io/job-completion-index"
_TRAINER = "Kubeflow Trainer"
_NODES = ("spec", "trainer", "numNodes")

T = TypeVar("T")
Tell = Callable[[str], None]


@dataclass
class Training:
    """A training in a namespace, from the `manifest` of its TrainJob. `tell` is told what becomes of it and why it
    waits, `show` gets the lines of its first node's log."""

    cluster: Cluster
    namespace: str
    manifest: Node
    tell: Tell
    show: Tell
    _told: str = field(default="", init=False)
    _read: str = field(default="", init=False)
    _first: str = field(default="", init=False)

    @property
    def name(self) -> str:
        return text(at(self.manifest, "metadata", "name"))

    def run(self) -> None:
        """Begin the training, or go on with the one of that name, and follow it to its good end; then remove it.

        Raises UserError if it is refused, or if its input is at fault. Raises AwayError if it has failed otherwise, or
        if Kubernetes gives no answer for so long as this process is patient: a new try may help.
        """
        if before := self._ended(self._patiently(self._look)):  # its result would be in the store
            self.tell(f"TrainJob {self.name} of a try before is removed first ({before.lower()})")
            self._patiently(self.remove)
            while self._patiently(self._look) is not None:
                time.sleep(PAUSE)
        if self._patiently(self._look) is None:
            self._begin()
        while not (end := self._ended(found := self._patiently(self._look))):
            if found is None:
                raise AwayError(f"TrainJob {self.name} was removed while it ran; a new try begins it again")
            self._patiently(lambda found=found: self._tell_about(found))  # type: ignore[misc]
            time.sleep(PAUSE)
        self._patiently(self._tell_log)
        if end == "Failed":
            raise self._failure(found)
        self._patiently(self.remove)

    def remove(self) -> None:
        """Remove the TrainJob, and with it its pods."""
        try:
            self.cluster.delete(f"{self._path}/{self.name}")
        except UnseenError as error:
            if error.status != 404:
                raise

    @property
    def _path(self) -> str:
        return f"{API}/namespaces/{self.namespace}/trainjobs"

    def _look(self) -> Node | None:
        return self.cluster.named(f"{self._path}/{self.name}")

    def _begin(self) -> None:
        try:
            self.cluster.post(self._path, self.manifest)
        except UnseenError as error:
            if error.status == 409:  # another run needs the same part, and was faster
                return
            lacking = error.status == 404
            mend = f"install {_TRAINER}" if lacking else "lmmpress doctor --cluster CLUSTER.yaml says what is missing"
            raise UserError(f"TrainJob {self.name} is refused in {self.namespace}: {error}; {mend}") from None
        self.tell(f"TrainJob {self.name} of {self.namespace} distils on {at(self.manifest, *_NODES)} nodes")

    @staticmethod
    def _ended(job: Node | None) -> str:
        """How a training has ended: Complete or Failed; empty before."""
        conditions = mappings(at(job, "status", "conditions"))
        true = [text(one.get("type")) for one in conditions if one.get("status") == "True"]
        return next((end for end in ("Failed", "Complete") if end in true), "")

    def _tell_about(self, job: Node) -> None:
        reason = str(self._why_waiting(job) or "")
        if reason and reason != self._told:
            self.tell(f"TrainJob {self.name} waits: {reason}")
        self._told = reason
        self._tell_log()

    def _why_waiting(self, job: Node) -> Reason | None:
        for one in mappings(at(job, "status", "conditions")):
            if one.get("type") == "Suspended" and one.get("status") == "True":
                return self._why_suspended(job)
        pods = self._pods()
        if not pods:
            said = last_warning(self.cluster, self.namespace, f"{self.name}-node-0")
            return Reason(f"it has no pods: {said}", f"kubectl describe job {self.name}-node-0") if said else None
        return why_pods_wait(self.cluster, Place(self.namespace, "", "", _TRAINER), pods)

    def _why_suspended(self, job: Node) -> Reason:
        """What the queue says, where we may see it."""
        owner, mend = at(job, "metadata", "uid"), f"kubectl get workloads -n {self.namespace}"
        try:
            version = text(at(self.cluster.find("/apis/kueue.x-k8s.io"), "preferredVersion", "version"))
            listed = f"/apis/kueue.x-k8s.io/{version}/namespaces/{self.namespace}/workloads"
            for workload in self.cluster.items(listed) if version else []:
                if owner in [one.get("uid") for one in mappings(at(workload, "metadata", "ownerReferences"))]:
                    waits = [
                        one for one in mappings(at(workload, "status", "conditions")) if one.get("status") == "False"
                    ]
                    return Reason(f"its queue says: {text(at(waits, 0, 'message')) or 'nothing yet'}", mend)
        except UnseenError:
            pass
        return Reason("it is suspended, as in a queue", mend)

    def _pods(self) -> list[PodSeen]:
        return pods_of(self.cluster, self.namespace, f"{_JOBS}={self.name}")

    def _tell_log(self) -> None:
        """Tell what the first node has printed since the last look."""
        for pod in self._pods():
            if at(pod.raw, "metadata", "labels", _NUMBER) == "0":
                if self._first and pod.name != self._first:
                    self.tell(f"TrainJob {self.name} begins again: a node has failed, or was taken away")
                self._first = pod.name
                for line in self._log(pod):
                    when, _, said = line.partition(" ")
                    if (when := when.rstrip("Z")) > self._read:
                        self._read = when
                        self.show(said)

    def _log(self, pod: PodSeen) -> list[str]:
        since = {"sinceTime": self._read[:19] + "Z"} if self._read else {}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod.name}/log"
        try:
            return self.cluster.text(path, container=pod.container, timestamps="true", **since).splitlines()
        except UnseenError as error:
            if error.status in (400, 404):  # its container has not started, or it is gone
                return []
            raise

    def _failure(self, job: Node | None) -> UserError:
        """Why the training has failed: by the pod that failed first, since the others follow it."""
        said, fault = "", False
        try:
            failed = [pod for pod in self._pods() if pod.phase == "Failed"]
            if failed:
                first = min(failed, key=lambda pod: pod.ended or pod.created)
                found: Failure = failure_of(self.cluster, self.namespace, first)
                said, fault = "; ".join([str(found), *found.lines]), first.exit_code == FAULT
        except UnseenError:
            pass
        for one in mappings(at(job, "status", "conditions")):
            if not said and one.get("type") == "Failed":
                said = text(one.get("message"))
        return (UserError if fault else AwayError)(f"TrainJob {self.name} failed: {said or 'no reason given'}")

    def _patiently(self, ask: Callable[[], T]) -> T:
        """What a question to Kubernetes gives, asked again while there is no answer."""
        until = time.monotonic() + patience()
        while True:
            try:
                return ask()
            except UnseenError as error:
                gone = error.status is None or error.status >= 500 or error.status == 429
                if not gone or time.monotonic() > until:
                    raise AwayError(f"TrainJob {self.name} cannot be followed: {error}") from None
            time.sleep(PAUSE)
