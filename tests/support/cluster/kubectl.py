"""kubectl as a function, objects as dictionaries, and waiting with an end."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any, TypeVar

Node = dict[str, Any]
T = TypeVar("T")


def kubectl(*words: str, given: str | None = None, seconds: float = 120) -> str:
    """What kubectl prints; AssertionError with its last words where it fails."""
    done = subprocess.run(["kubectl", *words], input=given, capture_output=True, encoding="utf-8", timeout=seconds)
    assert done.returncode == 0, f"kubectl {' '.join(words)}: {(done.stderr or done.stdout).strip()[-800:]}"
    return done.stdout


def found(kind: str, namespace: str, selector: str = "") -> list[Node]:
    """The objects of a kind; none where the namespace or the kind does not exist."""
    words = ["get", kind, "-n", namespace, "-o", "json", *(["-l", selector] if selector else [])]
    done = subprocess.run(["kubectl", *words], capture_output=True, encoding="utf-8", timeout=60)
    return list(json.loads(done.stdout)["items"]) if done.returncode == 0 else []


def one(kind: str, name: str, namespace: str) -> Node:
    """An object; empty if there is none."""
    words = ["get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found"]
    return dict(json.loads(kubectl(*words) or "{}"))


def apply(namespace: str, *objects: Node) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    kubectl("apply", "-n", namespace, "-f", "-", given=text)


def wait_for(what: str, look: Callable[[], T], seconds: float, pause: float = 2) -> T:
    """What `look` returns as soon as it is true; AssertionError after so many seconds."""
    end = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(pause)
    return seen


def why_no_cluster() -> str:
    """Why there is no cluster to try; empty if there is one."""
    if missing := shutil.which("kubectl") is None and "kubectl is not in PATH":
        return str(missing)
    try:
        done = subprocess.run(
            ["kubectl", "get", "--raw", "/version", "--request-timeout", "5s"],
            capture_output=True,
            encoding="utf-8",
            timeout=20,
        )
    except subprocess.TimeoutExpired:
        return "no cluster answers within 20 s"
    return "" if done.returncode == 0 else f"no cluster answers: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
