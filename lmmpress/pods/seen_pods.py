"""The pods of a run as Kubernetes shows them."""

from dataclasses import dataclass
from datetime import datetime

from lmmpress.host.pod import PART_LABEL, STAGE_LABEL
from lmmpress.pods.cluster_reader import Cluster, Node, at, mapping, mappings, text, whole

MAIN = "main"
"""The container of a task, in the pods of Argo."""
_OF_TASKS = (MAIN, "node")
"""The same, and that of a training on several nodes."""


@dataclass(frozen=True)
class PodSeen:
    """A pod. `part` and `stage` are ours, empty for pods of the engine's own. `main` is the state of the task's
    container; `node` is empty until a node takes the pod."""

    name: str
    part: str
    stage: str
    phase: str
    node: str
    raw: Node

    @classmethod
    def of(cls, raw: Node) -> "PodSeen":
        """A pod as the API answers it."""
        labels = mapping(at(raw, "metadata", "labels"))
        return cls(
            text(at(raw, "metadata", "name")),
            text(labels.get(PART_LABEL)),
            text(labels.get(STAGE_LABEL)),
            text(at(raw, "status", "phase")),
            text(at(raw, "spec", "nodeName")),
            raw,
        )

    def __str__(self) -> str:
        part = "prune" if self.part.endswith("_prune") else self.part
        return " of ".join(filter(None, (part, self.stage))) or "a pod of the engine"

    @property
    def main(self) -> Node:
        return next((one for one in self.containers if one.get("name") in _OF_TASKS), {})

    @property
    def container(self) -> str:
        """The name of the task's container, known before it starts."""
        names = [text(one.get("name")) for one in mappings(at(self.raw, "spec", "containers"))]
        return next((name for name in names if name in _OF_TASKS), MAIN)

    @property
    def containers(self) -> list[Node]:
        """The states of all containers, the first ones to start first."""
        status = mapping(self.raw.get("status"))
        return mappings(status.get("initContainerStatuses")) + mappings(status.get("containerStatuses"))

    @property
    def created(self) -> float:
        """Seconds since 1970; 0 where that is not known."""
        return _seconds(at(self.raw, "metadata", "creationTimestamp"))

    @property
    def began(self) -> float:
        """When its task began."""
        started = at(self.main, "state", "running", "startedAt") or at(self.main, "state", "terminated", "startedAt")
        return _seconds(started) or self.created

    @property
    def ended(self) -> float:
        """When its task ended; 0 before."""
        return _seconds(at(self.main, "state", "terminated", "finishedAt"))

    @property
    def exit_code(self) -> int | None:
        """The exit code of its task, if that has ended."""
        ended = at(self.main, "state", "terminated")
        return whole(mapping(ended).get("exitCode")) if isinstance(ended, dict) else None

    @property
    def is_over(self) -> bool:
        return self.phase in ("Succeeded", "Failed")


def pods_of(cluster: Cluster, namespace: str, selector: str) -> list[PodSeen]:
    """The pods with these labels, oldest first. Raises UnseenError if the API does not show them."""
    listed = cluster.items(f"/api/v1/namespaces/{namespace}/pods", labelSelector=selector)
    return sorted(map(PodSeen.of, listed), key=lambda pod: (pod.created, pod.name))


def _seconds(value: object) -> float:
    try:
        return datetime.fromisoformat(text(value)).timestamp()
    except ValueError:
        return 0.0
