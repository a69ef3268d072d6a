"""What a cluster tells of the controller of Argo Workflows: its version, what it looks at, its settings."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import yaml

from lmmpress.pods.cluster_reader import Cluster, Node, UnseenError, at, mapping, mappings, text, whole

DEPLOYMENT, CONFIG_MAP = "workflow-controller", "workflow-controller-configmap"
OLDEST, NEWEST = (3, 5), (4, 1)
"""The versions of Argo that workflows are made for, by its source."""


@dataclass(frozen=True)
class Controller:
    """What a cluster says of Argo's controller. `watched` is the only namespace that it looks at, None for all;
    `settings` what its ConfigMap says, and `unseen` why that could not be read."""

    name: str
    namespace: str
    image: str
    ready: int
    version: tuple[int, int] | None
    watched: str | None
    environment: dict[str, str] = field(default_factory=dict)
    settings: Node = field(default_factory=dict)
    unseen: str = ""

    @property
    def instance(self) -> str:
        """The instance id that workflows must have; empty if they must have none."""
        return text(self.settings.get("instanceID"))


def find_controller(cluster: Cluster, namespaces: Iterable[str]) -> Controller | None:
    """The controller in the first of these namespaces that has one; None if there is none. Raises UnseenError if it may
    not be looked for."""
    for namespace in dict.fromkeys(namespaces):
        for one in cluster.items(f"/apis/apps/v1/namespaces/{namespace}/deployments"):
            for container in mappings(at(one, "spec", "template", "spec", "containers")):
                if DEPLOYMENT in (text(at(one, "metadata", "name")), text(container.get("name"))) or (
                    f"/{DEPLOYMENT}:" in text(container.get("image"))
                ):
                    return _controller(one, container, namespace, cluster)
    return None


def _controller(deployment: Node, container: Node, namespace: str, cluster: Cluster) -> Controller:
    words = [word for key in ("command", "args") for word in container.get(key) or [] if isinstance(word, str)]
    options = _options(words)
    image = text(container.get("image"))
    found = re.search(r":v?(\d+)\.(\d+)[^@/]*(?=@|$)", image)
    settings, unseen = _settings(namespace, options.get("configmap") or CONFIG_MAP, cluster)
    watched = options.get("managed-namespace") or text(settings.get("namespace"))
    if not watched and options.get("namespaced", "false") != "false":
        watched = namespace
    return Controller(
        text(at(deployment, "metadata", "name")) or DEPLOYMENT,
        namespace,
        image,
        whole(at(deployment, "status", "readyReplicas")),
        (int(found[1]), int(found[2])) if found else None,
        watched or None,
        {text(one.get("name")): text(one.get("value")) for one in mappings(container.get("env"))},
        settings,
        unseen,
    )


def _options(words: list[str]) -> dict[str, str]:
    """The options of a command line, with their values; `true` for an option without one."""
    options: dict[str, str] = {}
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            options[name] = value if equals else following if not following.startswith("-") and following else "true"
    return options


def _settings(namespace: str, name: str, cluster: Cluster) -> tuple[Node, str]:
    """The controller's settings: each key of its ConfigMap, or all of them as one document in the key `config`."""
    try:
        data = mapping(at(cluster.named(f"/api/v1/namespaces/{namespace}/configmaps/{name}"), "data"))
    except UnseenError as error:
        return {}, str(error)
    settings: Node = {}
    for key, value in data.items():
        try:
            read = yaml.safe_load(text(value))
        except (yaml.YAMLError, RecursionError, ValueError):
            continue
        settings |= mapping(read) if key == "config" else {key: read}
    return settings, ""
