"""What a run cost: times, pods, requests to the bucket, and the size of Argo's object."""

import base64
import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from statistics import median
from typing import Any

from support.cluster.helpers_in_cluster import Helpers
from support.cluster.kubectl import Node
from support.cluster.runs import Run
from support.cluster.watched import Seen

_SLACK = 2.0  # seconds; Kubernetes' times are whole seconds
PICTURE = "/data/images/"


def measured(run: Run, helpers: Helpers) -> dict[str, Any]:
    """The row of a run in the table."""
    ours = [one for one in run.pods if one.part]
    asked = requests_by_part(run, ours, helpers.requests())
    seconds: dict[str, list[float]] = defaultdict(list)
    for one in ours:
        seconds[one.part] += [] if one.deleted else [one.seconds]
    work = sum(one.seconds for one in ours)
    parts = {
        part: {
            "pods": sum(one.part == part for one in ours),
            "median_seconds": median(took) if (took := seconds[part]) else None,
            "requests": asked[part]["all"],
            "requests_for_pictures": asked[part]["pictures"],
        }
        for part in dict.fromkeys(one.part for one in ours)
    }
    return {
        "engine": run.engine,
        "granularity": run.granularity,
        "seconds": round(run.ended - run.began),
        "pods": len(run.pods),
        "task_pods": len(ours),
        "pods_deleted": sum(one.deleted for one in ours),
        "seconds_in_tasks": round(work),
        "seconds_beside_work": round(run.ended - run.began - work),
        "seconds_beside_work_per_task": round((run.ended - run.began - work) / max(1, len(ours)), 1),
        "requests": sum(one["all"] for one in asked.values()),
        "requests_between_tasks": asked[""]["all"],
        "object": sizes(run.object),
        "parts": parts,
    }


def requests_by_part(run: Run, pods: list[Seen], requests: Iterable[tuple[float, str, str]]) -> dict[str, Counter[str]]:
    """The requests of each part; a run has its own folder in the bucket, and one task at a time."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for moment, _, path in requests:
        if f"/{run.name}/" not in path and f"%2F{run.name}%2F" not in path:
            continue
        near = [one for one in pods if one.began and one.began - 0.5 <= moment <= (one.ended or one.began) + _SLACK]
        part = max(near, key=lambda one: one.began or 0).part if near else ""
        if part or run.began <= moment <= run.ended:
            counts[part]["all"] += 1
            counts[part]["pictures"] += PICTURE in path.replace("%2F", "/")
    return counts


def sizes(workflow: Node) -> dict[str, int]:
    """Bytes of a workflow's object: all of it as it is stored, its specification, its nodes raw and compressed."""
    if not workflow:
        return {}
    status = workflow.get("status", {})
    if packed := status.get("compressedNodes"):
        nodes = json.loads(gzip.decompress(base64.b64decode(packed)))
    else:
        nodes = status.get("nodes", {})
        packed = base64.b64encode(gzip.compress(compact(nodes))).decode()
    spec = {key: value for key, value in status.items() if key.startswith("stored")} | {"spec": workflow["spec"]}
    return {
        "nodes": len(nodes),
        "stored": len(compact(workflow)),
        "specification": len(compact(spec)),
        "nodes_raw": len(compact(nodes)),
        "nodes_compressed": len(packed),
    }


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def markdown(results: dict[str, Any]) -> str:
    """The table, for people."""
    lines = [", ".join(f"{name} {version}" for name, version in results["versions"].items() if version), ""]
    head = ["run", "seconds", "pods", "beside work", "per task", "requests", "nodes", "raw kB", "compressed kB"]
    rows = [
        [
            name,
            one["seconds"],
            one["pods"],
            f"{one['seconds_beside_work']} s",
            f"{one['seconds_beside_work_per_task']} s",
            one["requests"],
            one["object"].get("nodes", ""),
            thousands(one["object"].get("nodes_raw")),
            thousands(one["object"].get("nodes_compressed")),
        ]
        for name, one in results["runs"].items()
    ]
    lines += table(head, rows)
    head = ["part", "run", "pods", "seconds", "requests", "for pictures"]
    rows = [
        [part, name, one["pods"], one["median_seconds"], one["requests"], one["requests_for_pictures"]]
        for name, run in results["runs"].items()
        for part, one in run["parts"].items()
    ]
    return "\n".join([*lines, "", *table(head, rows)]) + "\n"


def thousands(count: int | None) -> str:
    return "" if count is None else f"{count / 1000:.0f}"


def table(head: list[str], rows: list[list[Any]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    return lines + ["| " + " | ".join("" if one is None else str(one) for one in row) + " |" for row in rows]
