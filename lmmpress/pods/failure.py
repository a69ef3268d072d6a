"""Why a run has failed: the pod, what ended it, and the last lines of its log that are ours."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lmmpress.pods.cluster_reader import Cluster, UnseenError, at, mappings, text
from lmmpress.pods.seen_pods import PodSeen, pods_of
from lmmpress.pods.waiting import Place, workflow_of
from lmmpress.printing.one_line import printable
from lmmpress.progress.log import as_text

_TAIL = 200  # lines of a log that are read
_SHOWN = 5
_ERROR = re.compile(r"error: |[A-Z]\w*(?:Error|Exception)\b")
_OTHERS = re.compile(  # of Kubeflow's launcher, of its SDK, of Argo's executor, and of shells
    r"""[IWEF]\d{4} |\[KFP Executor |time="?\d|\{"|\d{4}[-/]\d\d[-/]\d\d[T ]\S+ (?:INFO|WARN|ERROR) .*argo"""
)
_EXIT = re.compile(r"exit status (\d+)")
_MEANING = {
    2: "a fault of the input or of the environment",
    137: "killed by the system, which is mostly for lack of memory",
    143: "asked to end",
}


@dataclass(frozen=True)
class Failure:
    """What failed, in which pod; `reason` is Kubernetes' own word or the exit code. `lines` are safe to print."""

    what: str
    pod: str
    reason: str
    lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        return printable(f"{self.what} failed{f' in pod {self.pod}' if self.pod else ''}: {self.reason}")


def why_failed(cluster: Cluster, place: Place) -> Failure | None:
    """The failed pod that ended a run: the last one; None if Kubernetes shows none."""
    try:
        pods = pods_of(cluster, place.namespace, place.selector)
    except UnseenError:
        return None
    failed = [pod for pod in pods if pod.phase == "Failed"]
    if not failed:
        return _without_pod(cluster, place)
    return failure_of(cluster, place.namespace, max(failed, key=lambda pod: pod.ended or pod.created))


def failure_of(cluster: Cluster, namespace: str, pod: PodSeen) -> Failure:
    """Why a pod has failed."""
    lines = _log(cluster, namespace, pod)
    return Failure(str(pod), pod.name, _reason(pod, lines), _ours(lines))


def _without_pod(cluster: Cluster, place: Place) -> Failure | None:
    """What Argo says of a run without a failed pod: it was deleted, or could not be made."""
    try:
        workflow = workflow_of(cluster, place)
    except UnseenError:
        return None
    message = text(at(workflow, "status", "message"))
    return Failure("the workflow", "", message) if message else None


def _reason(pod: PodSeen, lines: list[str]) -> str:
    """Why a pod ended: what Kubernetes says of the pod, else of its containers, else the exit code of the task."""
    status = pod.raw.get("status")
    if reason := text(at(status, "reason")):
        return ": ".join(filter(None, (reason, text(at(status, "message")))))
    for container in pod.containers:
        ended = at(container, "state", "terminated")
        if text(at(ended, "reason")) not in ("", "Completed", "Error"):
            limit = _limit(pod, text(container.get("name")))
            return f"{text(at(ended, 'reason'))}{f', its memory limit is {limit}' if limit else ''}"
    # Kubeflow's launcher ends with 1 whatever the task's exit code is, and logs that
    told = next((found for line in reversed(lines) if (found := _EXIT.search(line))), None)
    code = int(told[1]) if told else pod.exit_code
    if code is None:
        return text(at(status, "message")) or "no reason given"
    return f"exit code {code}{f', {_MEANING[code]}' if code in _MEANING else ''}"


def _limit(pod: PodSeen, container: str) -> str:
    for one in mappings(at(pod.raw, "spec", "containers")):
        if one.get("name") == container:
            return text(at(one, "resources", "limits", "memory"))
    return ""


def _log(cluster: Cluster, namespace: str, pod: PodSeen) -> list[str]:
    path = f"/api/v1/namespaces/{namespace}/pods/{pod.name}/log"
    try:
        return cluster.text(path, container=pod.container, tailLines=str(_TAIL)).splitlines()
    except UnseenError:
        return []


def _ours(lines: list[str]) -> tuple[str, ...]:
    """The last lines that are ours: those of errors, else the last ones that nobody else wrote."""
    told = [as_text(line) for line in _without_input(lines)]
    own = [line.strip() for line in told if line.strip() and not _OTHERS.match(line)]
    errors = [line for line in own if _ERROR.match(line)]
    return tuple(printable(line) for line in (errors or own)[-_SHOWN:])


def _without_input(lines: list[str]) -> Iterator[str]:
    """Lines without the task's input, which Kubeflow's SDK prints over many."""
    inside = False
    for line in lines:
        inside = inside or "Got executor_input:" in line
        if not inside:
            yield line
        inside = inside and line != "}"
