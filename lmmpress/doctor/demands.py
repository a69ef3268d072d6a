"""What a profile comes to in the cluster: where pods run, as whom, and what each component asks for."""

from dataclasses import dataclass
from decimal import Decimal

from lmmpress.doctor.finding import some
from lmmpress.doctor.reader import amount
from lmmpress.tasks.profile import COMPONENTS, Pod, Profile

BY_GRANULARITY = {
    "step": tuple(name for name in COMPONENTS if name != "stage"),
    "stage": ("prepare", "stage", "publish"),
}


def home(profile: Profile) -> str:
    """The namespace that pods run in."""
    return profile.kubeflow.namespace or profile.kubeflow.system


def account(profile: Profile) -> str:
    """The service account of the pods: where the profile names none, Kubeflow's, for one user or for several."""
    several = profile.kubeflow.namespace not in (None, profile.kubeflow.system)
    return profile.service_account or ("default-editor" if several else "pipeline-runner")


@dataclass(frozen=True)
class Asked:
    """What pods ask for that are alike, and which components they are."""

    components: tuple[str, ...]
    pod: Pod
    requests: dict[str, Decimal]
    limits: dict[str, Decimal]

    def __str__(self) -> str:
        return some(self.components, 3)

    @property
    def needs(self) -> str:
        """In words."""
        names = {"cpu": "cpu", "memory": "memory"}
        listed = [f"{self.requests[name]} {name}" for name in self.requests if name not in names]
        listed += [f"{name} {in_words(name, self.requests[name])}" for name in names if name in self.requests]
        return ", ".join(listed) or "nothing"


def asked(profile: Profile, components: tuple[str, ...]) -> list[Asked]:
    """What each kind of pod asks for; pods that are alike once."""
    groups: dict[str, list[str]] = {}
    for component in components:
        pod = profile.pod(component)
        groups.setdefault(pod.model_dump_json(exclude={"retries", "shm"}), []).append(component)
    return [_asked(tuple(names), profile.pod(names[0])) for names in groups.values()]


def _asked(names: tuple[str, ...], pod: Pod) -> Asked:
    requests: dict[str, Decimal] = {}
    limits: dict[str, Decimal] = {}
    for resources, found in ((pod.requests, requests), (pod.limits, limits)):
        for name in ("cpu", "memory"):
            value = amount(getattr(resources, name)) if resources and getattr(resources, name) else None
            if value is not None:
                found[name] = value
    if pod.gpus and pod.gpu_type:
        requests[pod.gpu_type] = limits[pod.gpu_type] = Decimal(pod.gpus)
    # what is limited and not asked for is asked for, as Kubernetes has it
    return Asked(names, pod, limits | requests, limits)


def in_words(name: str, value: Decimal) -> str:
    """An amount of a resource as Kubernetes writes it."""
    if name.rpartition(".")[2] in ("memory", "ephemeral-storage"):
        for size, unit in ((1 << 40, "Ti"), (1 << 30, "Gi"), (1 << 20, "Mi")):
            if abs(value) >= size:
                return f"{float(value) / size:.4g}{unit}"
        return f"{value:.0f}"
    return f"{float(value):.4g}"
