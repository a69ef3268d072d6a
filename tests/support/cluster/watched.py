"""Watches the pods of pipelines in a namespace: when each one's task began and ended, and whoever wants to know that a
task runs."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from lmmpress.host.pod import PART_LABEL, STAGE_LABEL
from support.cluster.kubectl import Node

WORKFLOW = "workflows.argoproj.io/workflow"


@dataclass
class Seen:
    """A pod. `part` and `stage` are ours, empty for pods of the engine's own. Times are seconds since 1970 of the
    container with the task; `deleted` where the pod was deleted before the task ended."""

    name: str
    workflow: str
    labels: dict[str, str]
    part: str
    stage: str
    created: float
    began: float | None = None
    ended: float | None = None
    deleted: bool = False

    @property
    def seconds(self) -> float:
        return self.ended - self.began if self.began and self.ended else 0.0


@dataclass
class Watched:
    """The pods of pipelines in a namespace, as they come and go."""

    namespace: str
    pods: dict[str, Seen] = field(default_factory=dict)
    _listeners: list[Callable[[Seen], None]] = field(default_factory=list)
    _over: bool = False

    def start(self) -> None:
        threading.Thread(target=self._watch, daemon=True).start()

    def stop(self) -> None:
        self._over = True

    def when_running(self, tell: Callable[[Seen], None]) -> None:
        """Call this once for each pod whose task has begun, from now on."""
        self._listeners.append(tell)

    def of(self, workflows: set[str]) -> list[Seen]:
        """The pods of these workflows, in order."""
        return sorted(
            (one for one in list(self.pods.values()) if one.workflow in workflows), key=lambda one: one.created
        )

    def _watch(self) -> None:
        from kubernetes import client, config, watch

        api = client.CoreV1Api(config.new_client_from_config())
        while not self._over:
            try:
                stream = watch.Watch().stream(
                    api.list_namespaced_pod, self.namespace, label_selector=WORKFLOW, timeout_seconds=60
                )
                for event in stream:
                    self._note(event["type"], event["raw_object"])
            except Exception:  # the API restarts, a connection breaks: look again
                time.sleep(1)

    def _note(self, kind: str, pod: Node) -> None:
        meta, labels = pod["metadata"], pod["metadata"].get("labels", {})
        key = str(meta["uid"])
        if key not in self.pods:
            named = meta["name"], labels[WORKFLOW], labels, labels.get(PART_LABEL, ""), labels.get(STAGE_LABEL, "")
            self.pods[key] = Seen(*named, created=seconds_at(meta["creationTimestamp"]))
        seen = self.pods[key]
        state: dict[str, Any] = next(
            (one.get("state", {}) for one in pod["status"].get("containerStatuses", []) if one["name"] == "main"), {}
        )
        if ended := state.get("terminated"):
            seen.began = seen.began or seconds_at(ended["startedAt"])
            seen.ended = seen.ended or seconds_at(ended["finishedAt"])
        elif (running := state.get("running")) and seen.began is None:
            seen.began = seconds_at(running["startedAt"])
            for tell in self._listeners:
                tell(seen)
        if kind == "DELETED" and seen.ended is None:
            seen.deleted, seen.ended = True, time.time()


def seconds_at(text: str) -> float:
    """Seconds since 1970 of a time of Kubernetes."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
