"""The kubeconfig of a server of the tests, written as kubectl does it."""

from pathlib import Path
from typing import Any

import yaml


def write_kubeconfig(folder: Path, host: str, user: dict[str, Any] | None = None, namespace: str = "") -> Path:
    """A kubeconfig in `folder` whose only context names the server at `host`, and a namespace if there is one."""
    context = {"cluster": "c", "user": "u"} | ({"namespace": namespace} if namespace else {})
    told = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "c", "cluster": {"server": host}}],
        "users": [{"name": "u", "user": user or {"token": "fresh"}}],
        "contexts": [{"name": "test", "context": context}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(told), "utf-8")
    return path
