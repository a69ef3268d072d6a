"""The chart as a release in a namespace."""

import base64
import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from support.cluster.kubectl import Node, kubectl, one
from support.paths import ROOT

CHART = ROOT / "helm/lmmpress"
NAME = "lmmpress-test"
_PATIENCE = 900  # seconds that an installation may take


@dataclass(frozen=True)
class Release:
    """The chart in a namespace, with the values of this cluster (a file, or none) and those of the proof."""

    helm: Path
    namespace: str
    theirs: Path | None
    ours: Node = field(default_factory=dict)

    def install(self, folder: Path, **further: Any) -> None:
        """Install the chart, or upgrade it."""
        file = folder / f"values-{self.namespace}.yaml"
        file.write_text(yaml.safe_dump(merged(self.ours, further)), "utf-8")
        given = [word for one in (self.theirs, file) if one for word in ("--values", str(one))]
        self._helm("upgrade", "--install", NAME, str(CHART), *given, "--wait", "--timeout", f"{_PATIENCE}s")

    def test(self) -> str:
        return self._helm("test", NAME, "--logs", "--timeout", "180s")

    def uninstall(self) -> None:
        self._helm("uninstall", NAME, "--ignore-not-found", "--wait", "--timeout", "180s")

    def profile(self) -> Node:
        """The cluster profile that the chart wrote."""
        read = one("configmap", f"{NAME}-cluster", self.namespace)
        return dict(yaml.safe_load(read["data"]["cluster.yaml"]))

    def values(self) -> Node:
        """All values of the installed release."""
        return dict(json.loads(self._helm("get", "values", NAME, "--all", "--output", "json")))

    def mlflow(self, script: str) -> Any:
        """What a script prints, as JSON, that runs in the pod of MLflow's server."""
        words = ["exec", "-i", "-n", self.namespace, f"deployment/{NAME}-mlflow", "--", "python3", "-"]
        return json.loads(kubectl(*words, given=script, seconds=180))

    def _helm(self, *words: str) -> str:
        command = [str(self.helm), *words, "--namespace", self.namespace]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=_PATIENCE + 120)
        assert done.returncode == 0, f"{' '.join(command)}: {(done.stdout + done.stderr).strip()[-1500:]}"
        return done.stdout


def merged(first: Node, second: Node) -> Node:
    """Both, the second above the first, as helm merges values."""
    both = dict(first)
    for key, value in second.items():
        both[key] = merged(both[key], value) if isinstance(value, dict) and isinstance(both.get(key), dict) else value
    return both


def secret(namespace: str, name: str) -> dict[str, str]:
    data = one("secret", name, namespace).get("data", {})
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def copy_secret(name: str, source: str, target: str) -> None:
    """The same Secret in another namespace."""
    data = one("secret", name, source)["data"]
    kubectl("apply", "-n", target, "-f", "-", given=json.dumps(opaque(name, data)))


def opaque(name: str, data: dict[str, str]) -> Node:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}
