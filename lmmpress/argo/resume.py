"""Resumes the suspended node of a workflow, as `argo resume` does: by noting in its status that it has ended."""

from datetime import UTC, datetime

from lmmpress.argo.cluster import Workflows
from lmmpress.argo.nodes import nodes_of, run_of, waiting_in, with_nodes
from lmmpress.errors import UserError
from lmmpress.pods.cluster_reader import Node, UnseenError

_TRIES = 10
_OURS = "app.kubernetes.io/name=lmmpress"
_CHANGED = 409


def resume(workflows: Workflows, run_key: str, stage: str, by: str, name: str = "") -> list[str]:
    """Resume the workflows of a run that wait after a stage; their names. UserError if the API does not let us. With
    the name of a workflow only that one is looked at, which needs no right to list them."""
    try:
        ours = [workflows.get(name)] if name else workflows.having(_OURS)
        return [done for one in ours if (done := _resumed(workflows, one, run_key, stage, by))]
    except UnseenError as error:
        raise UserError(f"{workflows.cluster.host}: {error}") from None


def _resumed(workflows: Workflows, workflow: Node | None, run_key: str, stage: str, by: str) -> str | None:
    for _ in range(_TRIES):
        if workflow is None or not (run_of(workflow) or "").startswith(run_key[:12]):
            return None
        waiting = [one.node for one in waiting_in(workflow) if one.stage == stage]
        if not waiting:
            return None
        nodes, name = nodes_of(workflow), str(workflow["metadata"]["name"])
        for node in waiting:
            ended = {"phase": "Succeeded", "finishedAt": _now(), "message": f"approved by {by}"}
            nodes[node] = nodes[node] | ended
        try:
            workflows.replace(with_nodes(workflow, nodes))
            return name
        except UnseenError as error:
            if error.status != _CHANGED:
                raise
            workflow = workflows.get(name)
    raise UserError(f"a workflow changes all the time; try again, or: argo resume -n {workflows.namespace}")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
