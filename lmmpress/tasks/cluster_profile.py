"""The cluster profile: what a platform team says once about where and how pods run, in YAML, checked when it is read.

Secrets are named in it and never held. What it says is applied when a pipeline is compiled.
"""

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lmmpress.axes import axes
from lmmpress.errors import UserError
from lmmpress.printing.credentials import holds_credentials, names_a_secret
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
    "publish",
)
ON_GPU = ("importance", "distill", "evaluate", "stage")
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
    """Which nodes a pod needs; or likes, with a `weight` from 1 to 100."""

    expressions: Annotated[list[Expression], Field(min_length=1)]
    weight: Annotated[int, Field(ge=1, le=100)] | None = None


class Resources(Settings):
    """Of one container."""

    cpu: Quantity | None = None
    memory: Quantity | None = None


class Retries(Settings):
    """How often a task that failed is tried again; seconds before the first time, that much longer before each more."""

    count: Annotated[int, Field(ge=0, le=100)] = 2
    seconds: Annotated[int, Field(ge=1)] = 30
    factor: Annotated[int, Field(ge=1, le=10)] = 2


class Pod(Settings):
    """What the pods of a component get. None is what `defaults` say.

    `gpus` of the kind `gpu_type` go to components that compute, one process of distillation each. `shm` is the size of
    /dev/shm, which those processes talk through. `timeout` ends a pod after so many seconds.
    """

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


class Secret(Settings):
    """A Secret of the namespace by its `name`, and which of its keys becomes which environment variable."""

    name: Name
    keys: Annotated[dict[Text, Text], Field(min_length=1)]


class StoreSecret(Secret):
    """What the store is read and written with."""

    keys: Annotated[dict[Text, Text], Field(min_length=1)] = {
        "AWS_ACCESS_KEY_ID": "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY": "AWS_SECRET_ACCESS_KEY",
    }


class MlflowSecret(Secret):
    """What MLflow asks for."""

    keys: Annotated[dict[Text, Text], Field(min_length=1)] = {
        "MLFLOW_TRACKING_USERNAME": "MLFLOW_TRACKING_USERNAME",
        "MLFLOW_TRACKING_PASSWORD": "MLFLOW_TRACKING_PASSWORD",
    }


class Secrets(Settings):
    """By name, never by value."""

    store: StoreSecret | None = None
    mlflow: MlflowSecret | None = None


class Cache(Settings):
    """Where pods keep what they fetched: a `claim` that outlives them, else a folder of the node of at most `size`."""

    claim: Name | None = None
    size: Quantity = "100Gi"


class Volume(Settings):
    """A PersistentVolumeClaim, mounted at `path` in every pod: paths below it are addresses that a plan may name."""

    claim: Name
    path: PodPath


class Security(Settings):
    """Whom containers run as. No privilege, no capability and no root come with Kubeflow and the image."""

    user: Annotated[int, Field(ge=1)] = 65532
    group: Annotated[int, Field(ge=1)] = 65532


class Kubeflow(Settings):
    """Where pipelines are submitted. `ui` is the address of its pages for people, where that is another; `ca` a file
    with the certificate authority of `host`; `system` the namespace that Kubeflow itself runs in, `namespace` that of
    the pods. A token comes from the environment (KFP_TOKEN)."""

    host: Text | None = None
    ui: Text | None = None
    namespace: Name | None = None
    system: Name = "kubeflow"
    experiment: Text = "lmmpress"
    ca: Text | None = None


class Profile(Settings):
    """A cluster. See docs/kubeflow.md for every key."""

    image: Text = "lmmpress"
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    pull_secrets: list[Name] = []
    service_account: Name | None = None
    kubeflow: Kubeflow = Kubeflow()
    queue: Text | None = None
    secrets: Secrets = Secrets()
    environment: dict[Annotated[str, AfterValidator(_variable)], Text] = {}
    cache: Cache = Cache()
    volumes: list[Volume] = []
    security: Security = Security()
    ttl: Annotated[int, Field(ge=0)] | None = None
    defaults: Pod = Pod()
    components: dict[Annotated[str, AfterValidator(_component)], Pod] = {}

    def pod(self, component: str) -> Pod:
        """What the pods of a component get: what is said of it, else the defaults; GPUs only where it computes."""
        own = self.components.get(component, Pod())
        merged = {key: value for key, value in self.defaults if value is not None}
        if component not in ON_GPU:
            merged.pop("gpus", None)
        merged |= {key: value for key, value in own if value is not None}
        usual = {"gpus": 1 if component in ON_GPU else 0, "gpu_type": "nvidia.com/gpu", "retries": Retries()}
        return Pod.model_validate(usual | {key: value for key, value in merged.items()})

    def holds(self, path: str) -> bool:
        """Whether a path lies on a volume that every pod has."""
        return any(PurePosixPath(path).is_relative_to(volume.path) for volume in self.volumes)

    def warnings(self) -> list[str]:
        """What is allowed and seldom meant."""
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
    """Read a profile. Raises UserError, with a line for each fault, where the file is none, or holds what is unknown or
    out of its range."""
    document = read_document(path, "cluster profile")
    found: dict[Place, str] = {}
    try:
        profile = Profile.model_validate(document.value)
    except ValidationError as error:
        found = faults_of(error, Profile)
    if faults := without_followers(document.faults, found):
        raise UserError(*lines_of(faults, str(path), document.lines))
    return profile
