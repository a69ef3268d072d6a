"""What a profile means in the cluster: the namespace and service account of the pods, and their resource requests."""

from dataclasses import dataclass, replace
from decimal import Decimal

from lmmpress.doctor.finding import some
from lmmpress.pods.cluster_reader import amount
from lmmpress.tasks.cluster_profile import COMPONENTS, DISTILLS, Engine, Pod, Profile
from lmmpress.tasks.training_manifest import TRAINS

BY_GRANULARITY = {
    "step": tuple(name for name in COMPONENTS if name != "stage"),
    "stage": ("prepare", "stage", "publish", "compare"),
}


def home(profile: Profile) -> str:
    """The namespace of the pods."""
    if profile.engine is Engine.argo:
        return profile.argo.namespace or "default"
    return profile.kubeflow.namespace or profile.kubeflow.system


def system(profile: Profile) -> str:
    """The namespace of what runs the pipelines: Kubeflow, or Argo alone."""
    return profile.argo.system if profile.engine is Engine.argo else profile.kubeflow.system


def account(profile: Profile) -> str:
    """The service account of the pods. Its default is Kubeflow's: `default-editor` with several users, otherwise
    `pipeline-runner`; with Argo alone it is the namespace's."""
    if profile.engine is Engine.argo:
        return profile.service_account or "default"
    several_users = profile.kubeflow.namespace not in (None, profile.kubeflow.system)
    return profile.service_account or ("default-editor" if several_users else "pipeline-runner")


@dataclass(frozen=True)
class Demand:
    """Components whose pods are equal, and the resources that such a pod requests.

    `count` of them run at once, `beside` another pod, which follows them.
    """

    components: tuple[str, ...]
    pod: Pod
    requests: dict[str, Decimal]
    limits: dict[str, Decimal]
    count: int = 1
    beside: "Demand | None" = None

    def __str__(self) -> str:
        return some(self.components, 3) + (f" on {self.count} nodes" if self.count > 1 else "")

    @property
    def needs(self) -> str:
        """The resources that a pod requests, for a message."""
        names = {"cpu": "cpu", "memory": "memory"}
        listed = [f"{self.requests[name]} {name}" for name in self.requests if name not in names]
        listed += [f"{name} {in_words(name, self.requests[name])}" for name in names if name in self.requests]
        return (", ".join(listed) or "nothing") + (" each" if self.count > 1 else "")

    @property
    def ask(self) -> str:
        """The subject and verb of a message about what the pods request together."""
        if self.beside:
            return f"its {self.count} pods and the one that follows them ask for"
        return "a pod asks for"


def demands_of(profile: Profile, components: tuple[str, ...]) -> list[Demand]:
    """The demand of each kind of pod; components with equal pods share one. Where several nodes distil, their pods are
    a demand of their own."""
    groups: dict[str, list[str]] = {}
    for component in components:
        pod = profile.task_pod(component)
        groups.setdefault(pod.model_dump_json(exclude={"retries", "shm"}), []).append(component)
    found = [_demand(tuple(names), profile.task_pod(names[0])) for names in groups.values()]
    training, following = profile.training, [name for name in TRAINS if name in components]
    if training and training.nodes and following:
        # only the pod that follows them has a deadline in Kubernetes
        together = _demand((DISTILLS,), training.model_copy(update={"timeout": None}))
        follower = _demand((following[0],), profile.task_pod(following[0]))
        found.append(replace(together, count=training.nodes, beside=follower))
    return found


def _demand(names: tuple[str, ...], pod: Pod) -> Demand:
    requests: dict[str, Decimal] = {}
    limits: dict[str, Decimal] = {}
    for resources, amounts in ((pod.requests, requests), (pod.limits, limits)):
        for name in ("cpu", "memory"):
            value = amount(getattr(resources, name)) if resources and getattr(resources, name) else None
            if value is not None:
                amounts[name] = value
    if pod.gpus and pod.gpu_type:
        requests[pod.gpu_type] = limits[pod.gpu_type] = Decimal(pod.gpus)
    # Kubernetes uses the limit as the request where there is no request
    return Demand(names, pod, limits | requests, limits)


def in_words(name: str, value: Decimal) -> str:
    """An amount of a resource in the notation of Kubernetes."""
    if name.rpartition(".")[2] in ("memory", "ephemeral-storage"):
        for size, unit in ((1 << 40, "Ti"), (1 << 30, "Gi"), (1 << 20, "Mi")):
            if abs(value) >= size:
                return f"{float(value) / size:.4g}{unit}"
        return f"{value:.0f}"
    return f"{float(value):.4g}"
