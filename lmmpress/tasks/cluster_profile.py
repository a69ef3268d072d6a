"""The cluster profile: a platform team's settings for where and how pods run, in YAML, checked when it is read.

It names Secrets and never holds their values. It is applied when a pipeline is compiled.
"""

import re
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lmmpress.axes import axes
from lmmpress.errors import UserError
from lmmpress.host.patience import seconds_of
from lmmpress.printing.credentials import holds_credentials, names_a_secret
from lmmpress.progress.log import LogForm
from lmmpress.settings.faults import faults_of, lines_of, nearest, without_followers
from lmmpress.settings.plain_yaml import Place, read_document

COMPONENTS = (
    "prepare",
    "steps",
    "due",
    "importance",
    *(axis.component_name for axis in axes()),
    "distill",
    "evaluate",
    "gate",
    "stage",
    "approval",
    "publish",
    "compare",
)
DISTILLS = "distill"
ON_GPU = ("importance", "distill", "evaluate", "stage", "compare")
"""The components that compute. The others copy, read and decide: a GPU would lie idle in their pods."""

_DIGEST = re.compile(r".+@sha256:[0-9a-f]{64}")


def _quantity(text: str) -> str:
    if not re.fullmatch(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?", text):
        raise ValueError("is no quantity of Kubernetes, such as 500m, 4 or 16Gi")
    return text


def _name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", text):
        raise ValueError("is no name in Kubernetes: small letters, digits, - and .")
    return text


def _path(text: str) -> str:
    if not PurePosixPath(text).is_absolute() or ".." in PurePosixPath(text).parts:
        raise ValueError("is no absolute path in a pod")
    return text


def _duration(text: str) -> str:
    seconds_of(text)
    return text


def _text(text: str) -> str:
    if holds_credentials(text):
        raise ValueError(
            "holds credentials, which pipelines would show: put them into a Secret and name that in secrets"
        )
    return text


def _variable(name: str) -> str:
    if names_a_secret(name):
        raise ValueError("looks like a secret: put it into a Secret and name that in secrets")
    return name


def _component(name: str) -> str:
    if name not in COMPONENTS:
        raise ValueError(f"is no component; {nearest(name, list(COMPONENTS))}")
    return name


Text = Annotated[str, AfterValidator(_text)]
Quantity = Annotated[str, AfterValidator(_quantity)]
Name = Annotated[str, AfterValidator(_name)]
Duration = Annotated[str, AfterValidator(_duration)]
PodPath = Annotated[str, AfterValidator(_path)]


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True, hide_input_in_errors=True)


class Toleration(Settings):
    """As in Kubernetes."""

    key: Text | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: Text | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = None


class Expression(Settings):
    """What a node's label must be."""

    key: Text
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    values: list[Text] = []


class NodeAffinity(Settings):
    """Which nodes a pod requires; with a `weight` from 1 to 100, which it prefers."""

    expressions: Annotated[list[Expression], Field(min_length=1)]
    weight: Annotated[int, Field(ge=1, le=100)] | None = None


class Resources(Settings):
    """Of one container."""

    cpu: Quantity | None = None
    memory: Quantity | None = None


class Retries(Settings):
    """How often a failed task is retried; the seconds before the first retry, and the factor for each further one."""

    count: Annotated[int, Field(ge=0, le=100)] = 2
    seconds: Annotated[int, Field(ge=1)] = 30
    factor: Annotated[int, Field(ge=1, le=10)] = 2


class Pod(Settings):
    """The settings of a component's pods. None means the value of `defaults`.

    `gpus` of the kind `gpu_type` go to components that compute; distillation starts one process for each GPU. `shm` is
    the size of /dev/shm, through which those processes communicate. `timeout` ends a pod after so many seconds.
    `nodes` is for `distill` alone: so many pods distil together, each with these settings.
    """

    nodes: Annotated[int, Field(ge=1, le=1000)] | None = None
    gpus: Annotated[int, Field(ge=0)] | None = None
    gpu_type: Text | None = None
    requests: Resources | None = None
    limits: Resources | None = None
    node_selector: dict[Text, Text] | None = None
    tolerations: list[Toleration] | None = None
    affinity: list[NodeAffinity] | None = None
    shm: Quantity | None = None
    timeout: Annotated[int, Field(ge=0)] | None = None
    retries: Retries | None = None


def _of_one_node(pod: Pod) -> Pod:
    if pod.nodes is not None:
        raise ValueError(f"holds nodes, which is for {DISTILLS} alone: set components.{DISTILLS}.nodes")
    return pod


def _alone(components: dict[str, Pod]) -> dict[str, Pod]:
    for name, pod in components.items():
        if pod.nodes is not None and name != DISTILLS:
            raise ValueError(f"holds nodes for {name}, which is for {DISTILLS} alone")
    return components


class Secret(Settings):
    """A Secret of the namespace by its `name`, and which of its keys becomes which environment variable."""

    name: Name
    keys: Annotated[dict[Text, Text], Field(min_length=1)]


class StoreSecret(Secret):
    """The Secret with the keys of the store."""

    keys: Annotated[dict[Text, Text], Field(min_length=1)] = {
        "AWS_ACCESS_KEY_ID": "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY": "AWS_SECRET_ACCESS_KEY",
    }


class MlflowSecret(Secret):
    """The Secret with MLflow's credentials."""

    keys: Annotated[dict[Text, Text], Field(min_length=1)] = {
        "MLFLOW_TRACKING_USERNAME": "MLFLOW_TRACKING_USERNAME",
        "MLFLOW_TRACKING_PASSWORD": "MLFLOW_TRACKING_PASSWORD",
    }


class Secrets(Settings):
    """Secrets by name, never by value."""

    store: StoreSecret | None = None
    mlflow: MlflowSecret | None = None


class Cache(Settings):
    """Where pods keep fetched files: a `claim` that outlives them, else a folder of the node of at most `size`."""

    claim: Name | None = None
    size: Quantity = "100Gi"


class Volume(Settings):
    """A PersistentVolumeClaim, mounted at `path` in every pod: paths below it are addresses that a plan may name."""

    claim: Name
    path: PodPath


class Security(Settings):
    """The user and group of containers. Kubeflow and the image give no privilege, no capability and no root."""

    user: Annotated[int, Field(ge=1)] = 65532
    group: Annotated[int, Field(ge=1)] = 65532


class Engine(StrEnum):
    """What runs the pods of a pipeline: Kubeflow Pipelines, or Argo Workflows alone."""

    kubeflow = "kubeflow"
    argo = "argo"


class Kubeflow(Settings):
    """Where pipelines are submitted. `ui` is the address of the pages for people, if it differs; `ca` a file with the
    certificate authority of `host`; `system` the namespace of Kubeflow itself, `namespace` that of the pods. A token
    comes from the environment (KFP_TOKEN)."""

    host: Text | None = None
    ui: Text | None = None
    namespace: Name | None = None
    system: Name = "kubeflow"
    experiment: Text = "lmmpress"
    ca: Text | None = None


class Argo(Settings):
    """Where workflows of Argo are submitted, if Argo runs without Kubeflow. `namespace` is that of the pods, `system`
    that of the controller, `ui` the address of Argo's pages. `instance` is the controller's instanceID, if it has one.
    `priority_class` is a PriorityClass for all pods, `deadline` ends a workflow after so many seconds. `report` keeps
    report.html as an artifact: the controller must have an artifact repository."""

    namespace: Name | None = None
    system: Name = "argo"
    ui: Text | None = None
    instance: Name | None = None
    priority_class: Name | None = None
    deadline: Annotated[int, Field(ge=1)] | None = None
    report: bool = False


class Trainer(Settings):
    """Kubeflow Trainer, for distillation on several nodes. `runtime` is the ClusterTrainingRuntime of its trainings,
    which the chart makes."""

    runtime: Name = "lmmpress"


class MlflowPages(Settings):
    """`ui` is the address at which people see MLflow: summaries of tasks link to it."""

    ui: Text | None = None


class Profile(Settings):
    """The profile of a cluster. See docs/kubeflow.md for every key."""

    image: Text = "lmmpress"
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    pull_secrets: list[Name] = []
    service_account: Name | None = None
    engine: Engine = Engine.kubeflow
    kubeflow: Kubeflow = Kubeflow()
    argo: Argo = Argo()
    trainer: Trainer = Trainer()
    mlflow: MlflowPages = MlflowPages()
    patience: Duration = "10m"
    log: LogForm = LogForm.text
    queue: Text | None = None
    secrets: Secrets = Secrets()
    environment: dict[Annotated[str, AfterValidator(_variable)], Text] = {}
    cache: Cache = Cache()
    volumes: list[Volume] = []
    security: Security = Security()
    ttl: Annotated[int, Field(ge=0)] | None = None
    defaults: Annotated[Pod, AfterValidator(_of_one_node)] = Pod()
    components: Annotated[dict[Annotated[str, AfterValidator(_component)], Pod], AfterValidator(_alone)] = {}

    @property
    def training(self) -> Pod | None:
        """The settings of each pod of a distillation on several nodes; None if one node distils."""
        pod = self.pod(DISTILLS)
        return pod if (pod.nodes or 1) > 1 else None

    def task_pod(self, component: str) -> Pod:
        """The settings of the pod that runs a task: those of its component. Where several nodes distil, that pod only
        follows them: it has the defaults, without GPUs."""
        own = self.pod(component)
        if component != DISTILLS or self.training is None:
            return own
        return self._with_defaults(Pod(timeout=own.timeout, retries=own.retries), computes=False)

    def pod(self, component: str) -> Pod:
        """The settings of a component's pods: its own, else the defaults; GPUs only if the component computes."""
        return self._with_defaults(self.components.get(component, Pod()), component in ON_GPU)

    def _with_defaults(self, own: Pod, computes: bool) -> Pod:
        merged = {key: value for key, value in self.defaults if value is not None}
        if not computes:
            merged.pop("gpus", None)
        merged |= {key: value for key, value in own if value is not None}
        usual = {"gpus": 1 if computes else 0, "gpu_type": "nvidia.com/gpu", "retries": Retries()}
        return Pod.model_validate(usual | {key: value for key, value in merged.items()})

    def holds(self, path: str) -> bool:
        """Whether a path is on a volume that every pod mounts."""
        return any(PurePosixPath(path).is_relative_to(volume.path) for volume in self.volumes)

    def warnings(self) -> list[str]:
        """Warnings for settings that are allowed but are probably mistakes."""
        found = []
        if not _DIGEST.fullmatch(self.image):
            found.append(
                f"image {self.image} has no digest: another image may run tomorrow; write it as name@sha256:..."
            )
        for name in self.components:
            if name not in ON_GPU and self.pod(name).gpus:
                found.append(f"components.{name} asks for {self.pod(name).gpus} GPUs, which would lie idle there")
        return found


def read_profile(path: Path) -> Profile:
    """Read a profile. Raises UserError, with a line for each fault, if the file is no profile, or a setting is unknown
    or out of its range."""
    document = read_document(path, "cluster profile")
    found: dict[Place, str] = {}
    try:
        profile = Profile.model_validate(document.value)
    except ValidationError as error:
        found = faults_of(error, Profile)
    if faults := without_followers(document.faults, found):
        raise UserError(*lines_of(faults, str(path), document.lines))
    return profile
