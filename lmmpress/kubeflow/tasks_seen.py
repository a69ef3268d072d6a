"""The tasks of a run as Kubeflow's API tells them, under the names that its pages show.

The API lists Argo's nodes: for each task its driver, its executor and what is around them; and where Argo tries every
node again, as Kubeflow 2.17 sets it up, a second node with a number in brackets. All have the same create_time.
"""

import re
from collections import Counter
from typing import Any

Node = dict[str, Any]
_NUMBER = re.compile(r"\(\d+\)$")
_UNKNOWN = (None, "RUNTIME_STATE_UNSPECIFIED")


def names_of(spec: Node) -> frozenset[str]:
    """The tasks of a compiled pipeline that have a pod of ours."""
    components: Node = spec["components"]
    dags = [one["dag"]["tasks"] for one in (spec["root"], *components.values()) if "dag" in one]
    return frozenset(
        name
        for tasks in dags
        for name, task in tasks.items()
        if "executorLabel" in components[task["componentRef"]["name"]]
    )


def tasks_of(run: Any, names: frozenset[str]) -> dict[str, str]:
    """The state of each task of that name, in the order of their starts; a name that comes again is numbered."""
    listed = (run.run_details.task_details if run.run_details else None) or []
    shown = [one for one in listed if one.state not in _UNKNOWN]
    bare = {one.display_name for one in shown}
    found: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for one in sorted(shown, key=lambda one: str(one.start_time)):
        name = _NUMBER.sub("", str(one.display_name))
        if name not in names or (name != one.display_name and name in bare):
            continue
        counts[name] += 1
        found[name if counts[name] == 1 else f"{name} ({counts[name]})"] = one.state
    return found
