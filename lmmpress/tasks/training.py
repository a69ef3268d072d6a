"""Distillation on several nodes: a training is begun and followed. Its first node stores the result under the part's
name, where the process that follows finds it."""

import json
import sys
from contextlib import suppress

from lmmpress.errors import UserError
from lmmpress.host.pod import this_pod
from lmmpress.host.sigterm import ended_in_order
from lmmpress.pods.cluster_reader import Cluster, NoClusterError, Node, UnseenError, at, connect, mappings, text
from lmmpress.pods.trainings import Training
from lmmpress.printing.visible import visible
from lmmpress.progress import say
from lmmpress.tasks.tries import SMALLER, halvings

_NAMESPACE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


def train(manifest: Node, part: str, **arguments: str | int) -> None:
    """Have several nodes make a part of that name: begin a training, or go on with the one that is there, and follow it
    to its good end. `arguments` are those of `distill_node`.

    If this process is ended because the run is, the training is removed. If only its pod is taken away, the training
    goes on, and the next try follows it. Raises UserError, see `Training.run`.
    """
    try:
        cluster = connect()
    except NoClusterError as error:
        raise UserError(f"a training on several nodes is begun from a pod of the cluster: {error}") from None
    namespace = _namespace()
    manifest = _filled(manifest, cluster, namespace, part, arguments)
    training = Training(cluster, namespace, manifest, say, _show)
    with ended_in_order():
        try:
            training.run()
        except (SystemExit, KeyboardInterrupt):
            if not _is_taken_away(cluster, namespace):
                with suppress(UnseenError):
                    training.remove()
            raise


def _filled(manifest: Node, cluster: Cluster, namespace: str, part: str, arguments: dict[str, str | int]) -> Node:
    """The manifest with the name of a part, what its nodes are to do, and the owner of this pod, with which it goes."""
    name = f"{part[: part.index('-')]}-{part.rpartition('-')[2][:16]}"  # as part of a pod's name it has to be short
    trainer = manifest["spec"]["trainer"]
    smaller = [{"name": SMALLER, "value": str(halvings())}] if halvings() else []
    trainer = trainer | {"args": ["--arguments", json.dumps(arguments)], "env": trainer["env"] + smaller}
    # without blockOwnerDeletion, which some clusters allow only to who may change the owner
    owned = mappings(at(_own_pod(cluster, namespace), "metadata", "ownerReferences"))
    owners = [{key: one.get(key) for key in ("apiVersion", "kind", "name", "uid")} for one in owned]
    metadata = manifest["metadata"] | {"name": name, "namespace": namespace, "ownerReferences": owners}
    return manifest | {"metadata": metadata, "spec": manifest["spec"] | {"trainer": trainer}}


def _own_pod(cluster: Cluster, namespace: str) -> Node:
    """This process's pod; empty if Kubernetes does not show it."""
    with suppress(UnseenError):
        return cluster.named(f"/api/v1/namespaces/{namespace}/pods/{this_pod().name}") or {}
    return {}


def _is_taken_away(cluster: Cluster, namespace: str) -> bool:
    """Whether this pod is being deleted, as by an eviction. Where a run is ended, its containers are, not its pods."""
    return bool(text(at(_own_pod(cluster, namespace), "metadata", "deletionTimestamp")))


def _namespace() -> str:
    """The namespace of this pod."""
    if named := this_pod().namespace:
        return named
    try:
        with open(_NAMESPACE, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        raise UserError("a training on several nodes is begun from a pod of the cluster, and this is none") from None


def _show(line: str) -> None:
    """Show a line of a node's log, which has this process's form."""
    print(visible(line), file=sys.stderr, flush=True)
