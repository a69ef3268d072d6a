"""Why nothing moves in a run: the reasons that Kubernetes gives, and what mends them."""

import re
from dataclasses import dataclass

from lmmpress.pods.cluster_reader import Cluster, Node, UnseenError, at, mapping, mappings, text
from lmmpress.pods.seen_pods import PodSeen, pods_of
from lmmpress.printing.one_line import printable

ENDED = ("Succeeded", "Failed", "Error")
"""The phases of a workflow that has ended."""
_WORKFLOWS = "/apis/argoproj.io/v1alpha1/namespaces/{}/workflows"
_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
_USUAL = ("", "PodInitializing", "ContainerCreating")  # what every pod says on its way
_NAMES = re.compile(
    r"name resolution|NameResolutionError|no such host|[Cc]ould not resolve|getaddrinfo|"
    r"server misbehaving|lookup \S+ on \S+: .*(?:timeout|refused)|lookup \S+: i/o timeout"
)
_LINES = 20


@dataclass(frozen=True)
class Place:
    """Where the pods of a run are: their namespace, the labels that they and their workflow have, the namespace of the
    engine, and the name of the engine for people."""

    namespace: str
    selector: str
    system: str
    engine: str = "Kubeflow"


@dataclass(frozen=True)
class Reason:
    """Why nothing moves, and what mends it; the latter is empty where nothing is wrong."""

    said: str
    mend: str = ""

    def __str__(self) -> str:
        return printable(f"{self.said}; {self.mend}" if self.mend else self.said, 700)


def workflow_of(cluster: Cluster, place: Place) -> Node | None:
    """The workflow of a run, the newest if there are several; None if there is none."""
    found = cluster.items(_WORKFLOWS.format(place.namespace), labelSelector=place.selector)
    return max(found, key=lambda one: text(at(one, "metadata", "creationTimestamp")), default=None)


def phase_of(workflow: Node | None) -> str:
    return text(at(workflow, "status", "phase"))


def why_waiting(cluster: Cluster, place: Place, engine_says: str = "") -> Reason | None:
    """Why nothing moves; None if Kubernetes gives no reason, or does not show this to us.

    `engine_says` is the state of the run as its engine tells it.
    """
    try:
        workflow = workflow_of(cluster, place)
        pods = pods_of(cluster, place.namespace, place.selector)
    except UnseenError:
        return None
    found = _of_workflow(place, workflow, engine_says) or why_pods_wait(cluster, place, pods)
    return found or _in_nodes(workflow) or _working([pod for pod in pods if not pod.is_over])


def why_pods_wait(cluster: Cluster, place: Place, pods: list[PodSeen]) -> Reason | None:
    """What the last of some pods waits for that waits for anything; None if Kubernetes gives no reason."""
    waiting = (pod for pod in reversed(pods) if not pod.is_over)
    return next((found for pod in waiting if (found := _of_pod(cluster, place, pod))), None)


def _of_workflow(place: Place, workflow: Node | None, engine_says: str) -> Reason | None:
    system = place.system
    if workflow is None:
        said = f"there is no workflow of this run in namespace {place.namespace}"
        return Reason(said, f"it was deleted, or the kubeconfig is of another cluster than {place.engine}'s")
    name, phase = text(at(workflow, "metadata", "name")), phase_of(workflow)
    if not phase:
        return Reason(
            f"Argo has not taken up workflow {name}",
            f"does its controller run, and see this namespace? kubectl get deployment workflow-controller -n {system}",
        )
    if phase in ENDED and engine_says not in ("", *ENDED):
        return _unreported(
            place, f"workflow {name} has ended ({phase.lower()}), and {place.engine} still says {engine_says.lower()}"
        )
    if engine_says == "PENDING":
        return _unreported(place, f"workflow {name} is {phase.lower()}, and {place.engine} still says pending")
    if at(workflow, "spec", "suspend") is True:
        return Reason(f"workflow {name} is suspended", f"argo resume {name} -n {place.namespace}")
    return None


def _unreported(place: Place, said: str) -> Reason:
    agent = "ml-pipeline-persistenceagent"
    return Reason(said, f"its persistence agent does not report: kubectl logs deployment/{agent} -n {place.system}")


def _of_pod(cluster: Cluster, place: Place, pod: PodSeen) -> Reason | None:
    """What a pod waits for."""
    about = f"pod {pod.name} ({pod})"
    described = f"kubectl describe pod {pod.name} -n {place.namespace}"
    if at(pod.raw, "metadata", "deletionTimestamp"):
        return Reason(f"{about} is being deleted", described)
    if mappings(at(pod.raw, "spec", "schedulingGates")):
        return Reason(f"{about} waits in its queue", f"kubectl get workloads -n {place.namespace}")
    for condition in mappings(at(pod.raw, "status", "conditions")):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            said = f"no node takes {about}: {text(condition.get('message')) or text(condition.get('reason'))}"
            return Reason(said, "lmmpress doctor --cluster CLUSTER.yaml says which nodes could")
    for container in pod.containers:
        waits = mapping(at(container, "state", "waiting"))
        reason, message = text(waits.get("reason")), text(waits.get("message"))
        if reason in _IMAGE:
            return _of_image(place, pod, container, f"{about}: {message or reason}")
        if reason not in _USUAL:
            return Reason(f"{about}: {reason}{f': {message}' if message else ''}", described)
    if pod.phase == "Pending":
        if said := last_warning(cluster, place.namespace, pod.name):
            return Reason(f"{about} does not start: {said}", described)
        return None
    if line := _unresolved(cluster, place.namespace, pod):
        mend = "does a network policy refuse DNS? lmmpress doctor --inside says which value to set"
        return Reason(f"{about} cannot resolve names: {line}", mend)
    return None


def _of_image(place: Place, pod: PodSeen, container: Node, said: str) -> Reason:
    image, name = text(container.get("image")), text(container.get("name"))
    if pod.part and name == pod.container:
        return Reason(f"image {image} cannot be pulled: {said}", "see image and pull_secrets in the cluster profile")
    if name in ("init", "wait"):
        mend = f"it is Argo's: --executor-image of deployment workflow-controller in {place.system}"
    else:
        variables = "V2_DRIVER_IMAGE and V2_LAUNCHER_IMAGE"
        mend = f"it is {place.engine}'s own: {variables} of deployment ml-pipeline in {place.system}"
    return Reason(f"image {image} cannot be pulled: {said}", mend)


def last_warning(cluster: Cluster, namespace: str, name: str) -> str:
    """The last warning among the events of an object, such as a pod; empty if there is none, or none is shown to us."""
    try:
        events = cluster.items(f"/api/v1/namespaces/{namespace}/events", fieldSelector=f"involvedObject.name={name}")
    except UnseenError:
        return ""
    warnings = [one for one in events if one.get("type") == "Warning"]
    last = max(warnings, key=lambda one: text(one.get("lastTimestamp")) or text(one.get("eventTime")), default={})
    return ": ".join(filter(None, (text(last.get("reason")), text(last.get("message")))))


def _unresolved(cluster: Cluster, namespace: str, pod: PodSeen) -> str:
    """A line of a pod's log that says that a name cannot be resolved; only its last lines count."""
    path = f"/api/v1/namespaces/{namespace}/pods/{pod.name}/log"
    try:
        lines = cluster.text(path, container=pod.container, tailLines=str(_LINES)).splitlines()
    except UnseenError:
        return ""
    return next((line for line in reversed(lines) if _NAMES.search(line)), "")[:300]


def _in_nodes(workflow: Node | None) -> Reason | None:
    """What Argo notes of a pod that it could not make, such as a quota that is used up."""
    for node in mapping(at(workflow, "status", "nodes")).values():
        pending = isinstance(node, dict) and (node.get("type"), node.get("phase")) == ("Pod", "Pending")
        if pending and text(node.get("message")) not in _USUAL:
            name = text(at(workflow, "metadata", "name"))
            return Reason(f"{text(node.get('displayName'))}: {text(node.get('message'))}", f"see workflow {name}")
    return None


def _working(waiting: list[PodSeen]) -> Reason | None:
    """Nothing is wrong: which pod is at work."""
    for pod in waiting:
        if pod.part and pod.phase == "Running":
            return Reason(f"{pod} is at work in pod {pod.name} on {pod.node}")
    return None
