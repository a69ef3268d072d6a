"""The nodes of a workflow, as Argo's controller notes them in its status, read for people.

Pods are removed when they have ended; nodes stay as long as their workflow.
"""

import base64
import gzip
import json
import re
from dataclasses import dataclass

from lmmpress.argo.template import MEASURE, WAIT
from lmmpress.errors import UserError
from lmmpress.pods.cluster_reader import Node, at, mapping, mappings, text
from lmmpress.pods.seen_pods import MAIN, PodSeen
from lmmpress.printing.visible import visible
from lmmpress.progress.log import as_text

ENDED = ("Succeeded", "Failed", "Error")
_EXIT = re.compile(r"exit code (\d+)\)(?::\s*(.*))?", re.DOTALL)
_MOST = 400  # characters of a reason


@dataclass(frozen=True)
class Part:
    """A try of a part. `pod` is its pod, whether that is still there or not; `message` is Argo's; `result` is what the
    task has left."""

    pod: PodSeen
    index: str
    message: str
    result: Node

    @property
    def name(self) -> str:
        """The part for people, `block 2 distill`."""
        step = [self.index] if self.index else []
        return visible(" ".join(filter(None, (self.pod.stage, *step, self.pod.part))))

    @property
    def exit_code(self) -> int | None:
        found = _EXIT.search(self.message)
        return int(found[1]) if found else None

    @property
    def why(self) -> str:
        """The reason of a failure in one line: our own last line of the log, else Argo's message."""
        found = _EXIT.search(self.message)
        lines = [as_text(line) for line in (found[2] or "").strip().splitlines()] if found else []
        ours = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        said = ours[-1] if ours else " ".join(lines[-1:]) or self.message
        return visible(said.strip())[:_MOST]


@dataclass(frozen=True)
class Waiting:
    """A suspended node: the stage after which an approval is waited for."""

    node: str
    stage: str


def nodes_of(workflow: Node) -> dict[str, Node]:
    """All nodes by their ids. Argo compresses them where they are large; UserError where it keeps them in a database of
    its own."""
    if compressed := text(at(workflow, "status", "compressedNodes")):
        try:
            found = json.loads(gzip.decompress(base64.b64decode(compressed)))
        except (ValueError, OSError, EOFError):
            found = {}
    elif at(workflow, "status", "offloadNodeStatusVersion"):
        raise UserError(
            f"workflow {at(workflow, 'metadata', 'name')}: Argo keeps its nodes in a database, which Kubernetes' API "
            "does not show; follow it in Argo's pages"
        )
    else:
        found = at(workflow, "status", "nodes")
    return {name: node for name, node in mapping(found).items() if isinstance(node, dict)}


def with_nodes(workflow: Node, nodes: dict[str, Node]) -> Node:
    """The workflow with other nodes, in the form that it has them in."""
    status = dict(workflow["status"])
    if status.get("compressedNodes"):
        status["compressedNodes"] = base64.b64encode(gzip.compress(json.dumps(nodes).encode())).decode()
    else:
        status["nodes"] = nodes
    return workflow | {"status": status}


def parts_of(workflow: Node) -> list[Part]:
    """The tries of all parts, in the order in which they began."""
    pods = [node for node in nodes_of(workflow).values() if node.get("type") == "Pod"]
    return [_part(node) for node in sorted(pods, key=lambda one: (text(one.get("startedAt")), text(one.get("name"))))]


def waiting_in(workflow: Node) -> list[Waiting]:
    """The nodes that wait for a person."""
    return [
        Waiting(name, _inputs(node).get("stage", ""))
        for name, node in nodes_of(workflow).items()
        if node.get("type") == "Suspend" and node.get("templateName") == WAIT and node.get("phase") == "Running"
    ]


def run_of(workflow: Node) -> str | None:
    """The name of the submission, once its first task has ended."""
    names = (text(at(part.result, "outputs", "run")) for part in parts_of(workflow) if part.pod.part == "prepare")
    return next(filter(None, names), None)


def in_line(workflow: Node) -> str | None:
    """Who has the mutex of the run that this workflow waits for."""
    holder = text(at(workflow, "status", "synchronization", "mutex", "waiting", 0, "holder"))
    namespace, _, rest = holder.partition("/")  # then the workflow, then the node that has it
    return rest.partition("/")[0] or namespace or None


def _part(node: Node) -> Part:
    inputs, name = _inputs(node), text(node.get("templateName"))
    index = inputs.get("index", "")
    # in the words of Kubernetes, so that nodes are told as pods are; a pod that Argo could not make has failed too
    phase = "Failed" if node.get("phase") == "Error" else text(node.get("phase"))
    ended = {"startedAt": node.get("startedAt"), "finishedAt": node.get("finishedAt")}
    state = {"terminated": ended} if node.get("finishedAt") else {"running": ended}
    raw = {
        "metadata": {"creationTimestamp": node.get("startedAt")},
        "status": {"containerStatuses": [{"name": MAIN, "state": state}]},
    }
    part = "evaluate" if name == MEASURE else name.replace("-", "_")
    stage = "" if name == MEASURE else inputs.get("stage", "")
    pod = PodSeen(_pod_name(node), part, stage, phase, text(node.get("hostNodeName")), raw)
    return Part(pod, str(int(index) + 1) if index.isdecimal() else "", text(node.get("message")), _result(node))


def _result(node: Node) -> Node:
    for one in mappings(at(node, "outputs", "parameters")):
        if one.get("name") == "result":
            try:
                return mapping(json.loads(text(one.get("value"))))
            except (ValueError, RecursionError):
                return {}
    return {}


def _inputs(node: Node) -> dict[str, str]:
    return {text(one.get("name")): text(one.get("value")) for one in mappings(at(node, "inputs", "parameters"))}


def _pod_name(node: Node) -> str:
    """The name of a node's pod: the workflow's name, the template's, and the number that ends the node's id."""
    workflow, _, number = text(node.get("id")).rpartition("-")
    return f"{workflow}-{node.get('templateName')}-{number}"
