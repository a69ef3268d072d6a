"""Two pods of our image beside a release: a proxy before the S3 server, and one for commands."""

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from support.cluster.kubectl import Node, apply, found, kubectl, wait_for

S3, TOOLS = "lmmpress-test-s3", "lmmpress-test-tools"
_SCRIPT = Path(__file__).with_name("s3_proxy.py")
CONFINED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}


@dataclass
class Helpers:
    """The two pods. `keys` is the Secret with the keys of pipelines, `endpoint` the S3 server itself."""

    namespace: str
    image: str
    pull_policy: str
    pull_secrets: list[str]
    keys: Node  # as `secrets.store` of a cluster profile
    endpoint: str
    region: str
    domain: str
    folder: Path
    _followed: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self) -> None:
        place = urlsplit(self.endpoint)
        assert place.scheme == "http", f"the store can only be cut off where it is plain HTTP, not {self.endpoint}"
        script = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": S3}}
        script["data"] = {"proxy.py": _SCRIPT.read_text("utf-8")}
        service: Node = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": S3}}
        service["spec"] = {"selector": {"app": S3}, "ports": [{"port": 9000}]}
        proxy = ["python3", "-u", "/script/proxy.py", str(place.hostname), str(place.port or 80)]
        apply(
            self.namespace, script, service, self._deployment(S3, proxy), self._deployment(TOOLS, ["sleep", "infinity"])
        )
        for name in (S3, TOOLS):
            kubectl("rollout", "status", f"deployment/{name}", "-n", self.namespace, "--timeout=180s", seconds=200)
        self._follow()

    def stop(self) -> None:
        self._end_following()
        words = ["delete", f"deployment/{S3}", f"deployment/{TOOLS}", f"service/{S3}", f"configmap/{S3}"]
        kubectl(*words, "-n", self.namespace, "--ignore-not-found", "--wait=false")

    @property
    def address(self) -> str:
        """The endpoint of the proxy, for pods of all namespaces."""
        return f"http://{S3}.{self.namespace}.svc.{self.domain}:9000"

    def cut_off(self, seconds: float) -> None:
        """Take the store away for some time."""
        kubectl("scale", f"deployment/{S3}", "-n", self.namespace, "--replicas=0")
        wait_for("the proxy's end", lambda: not found("pods", self.namespace, f"app={S3}"), 60, 1)
        self._end_following()
        time.sleep(seconds)
        kubectl("scale", f"deployment/{S3}", "-n", self.namespace, "--replicas=1")
        kubectl("rollout", "status", f"deployment/{S3}", "-n", self.namespace, "--timeout=120s")
        self._follow()

    def requests(self) -> Iterator[tuple[float, str, str]]:
        """Time, method and path of each request so far."""
        for file in sorted(self.folder.glob("requests-*.log")):
            for line in file.read_text("utf-8", errors="replace").splitlines():
                words = line.split(" ", 2)
                if len(words) == 3:  # the last line may be half written
                    yield float(words[0]), words[1], words[2]

    def has_served(self, run: str) -> bool:
        """Whether the store was asked for something of a run."""
        return any(f"/{run}/" in path.replace("%2F", "/") for _, _, path in self.requests())

    def python(self, script: str, seconds: float = 300) -> str:
        """What a script prints that runs in the pod for commands."""
        words = ["exec", "-i", "-n", self.namespace, f"deployment/{TOOLS}", "--", "python3", "-"]
        return kubectl(*words, given=script, seconds=seconds)

    def lmmpress(self, *words: str, seconds: float = 300) -> str:
        return kubectl("exec", "-n", self.namespace, f"deployment/{TOOLS}", "--", "lmmpress", *words, seconds=seconds)

    def _follow(self) -> None:
        """Keep the proxy's log: it goes with the pod."""
        pods = found("pods", self.namespace, f"app={S3}")
        (name,) = [one["metadata"]["name"] for one in pods if "deletionTimestamp" not in one["metadata"]]
        file = (self.folder / f"requests-{len(list(self.folder.glob('requests-*.log')))}.log").open(
            "w", encoding="utf-8"
        )
        command = ["kubectl", "logs", "-f", "-n", self.namespace, name]
        self._followed.append(subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL, encoding="utf-8"))

    def _end_following(self) -> None:
        for one in self._followed:
            try:
                one.wait(5)
            except subprocess.TimeoutExpired:
                one.terminate()
        self._followed.clear()

    def _deployment(self, name: str, command: list[str]) -> Node:
        environment: list[Node] = [{"name": "AWS_ENDPOINT_URL", "value": self.endpoint}]
        environment += [{"name": "AWS_REGION", "value": self.region}, {"name": "HOME", "value": "/tmp"}]
        for key, variable in self.keys["keys"].items():
            source = {"secretKeyRef": {"name": self.keys["name"], "key": key}}
            environment.append({"name": variable, "valueFrom": source})
        container = {
            "name": "main",
            "image": self.image,
            "imagePullPolicy": self.pull_policy,
            "command": command,
            "env": environment,
            "securityContext": CONFINED,
            "resources": {"requests": {"cpu": "250m", "memory": "256Mi"}},
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        }
        volumes: list[Node] = [{"name": "tmp", "emptyDir": {}}]
        if name == S3:
            container["readinessProbe"] = {"tcpSocket": {"port": 9000}, "periodSeconds": 2}
            container["volumeMounts"] = [{"name": "script", "mountPath": "/script"}]
            volumes = [{"name": "script", "configMap": {"name": S3}}]
        pod = {
            "containers": [container],
            "volumes": volumes,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "imagePullSecrets": [{"name": one} for one in self.pull_secrets],
        }
        labels = {"app": name}
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        }


def as_json(text: str) -> Node:
    """The JSON object in what a command printed."""
    return dict(json.loads(text[text.index("{") :]))
