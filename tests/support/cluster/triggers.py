"""The trigger of a release: its settings, its model in MLflow, and its commands in its pod."""

import json
import secrets
import subprocess
from dataclasses import dataclass, field
from typing import Any

from lmmpress.host.pod import STAGE_LABEL
from support.cluster.kubectl import Node, apply, found, kubectl, wait_for
from support.cluster.release import NAME, Release, merged
from support.cluster.runs import PLAN
from support.cluster.watched import WORKFLOW

DEPLOYMENT, SECRET = f"{NAME}-trigger", f"{NAME}-trigger"
SECRETS = ("webhook", "token", "session")
PODS = {
    "matchLabels": {"app.kubernetes.io/instance": NAME},
    "matchExpressions": [
        {"key": "app.kubernetes.io/component", "operator": "In", "values": ["trigger", "check-trigger"]}
    ],
}
"""The trigger's own pods, and those of its `helm test`."""


@dataclass
class Triggered:
    """The trigger of the release of an engine. It watches one model, which no other proof has used; `mlflow` is the
    release that has MLflow's server."""

    release: Release
    mlflow: Release
    engine: str
    model: str
    place: str
    claims_seen: list[Node] = field(default_factory=list)

    @property
    def compressed(self) -> str:
        return f"{self.model}-compressed"

    @property
    def values(self) -> Node:
        """What it adds to the values of the release: a plan that starts at every release, and one that people start,
        which waits for an approval. The page knows Ann where she comes from the pod itself. Each model has an
        experiment of its own in MLflow, since one run for two models is recorded once."""
        plan = PLAN | {"model": f"models:/{self.model}@release", "data": f"{self.place}/data"}
        plan |= {"store": f"{self.place}/store"}
        plan["stages"] = [{"axis": axis, **amounts} for axis, amounts in PLAN["stages"].items()]
        watched = {
            "plans": {
                "usual": {"plan": "plans/usual.yaml", "granularity": "stage"},
                "other": {"plan": "plans/other.yaml", "granularity": "stage"},
            },
            "default": "usual",
            "policy": {"start": "every-release", "most_a_day": 5},
        }
        server = {
            "webhook_secrets": [{"file": "secrets/webhook"}],
            "tokens": [{"name": "proof", "role": "operator", "file": "secrets/token"}],
            "page": {
                "trusted_proxies": ["127.0.0.1/32"],
                "users": {"ann": "operator"},
                "session_secret": {"file": "secrets/session"},
            },
        }
        files = {name: {"secret": SECRET, "key": name} for name in SECRETS}
        return {
            "profile": {"environment": {"MLFLOW_EXPERIMENT_NAME": self.model}},
            "plans": {"usual": plan, "other": merged(plan, {"seed": 1, "pipeline": {"approve": ["block"]}})},
            "trigger": {
                "enabled": True,
                "replicas": 2,
                "settings": {"models": {self.model: watched}, "server": server},
                "secrets": files,
            },
        }

    def make_secret(self) -> None:
        data = {name: secrets.token_hex(32) for name in SECRETS}
        apply(
            self.release.namespace,
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "stringData": data},
        )

    def remove_secret(self) -> None:
        kubectl("delete", "secret", SECRET, "-n", self.release.namespace, "--ignore-not-found")

    def register(self) -> None:
        """Register the model in MLflow, as a version that is not released yet."""
        script = _REGISTER.format(model=self.model, address=f"{self.place}/model")
        assert self.mlflow.mlflow(script) == "1"

    def register_webhook(self) -> None:
        """As docs/operate.md does."""
        url = f"http://{DEPLOYMENT}.{self.release.namespace}.svc.cluster.local:8080/webhooks/mlflow"
        self.python(_WEBHOOK.format(url=url))

    def set_release(self) -> None:
        assert self.mlflow.mlflow(_RELEASE.format(model=self.model)) == "released"

    def python(self, script: str) -> str:
        words = ["exec", "-i", "-n", self.release.namespace, f"deployment/{DEPLOYMENT}", "--", "python3", "-"]
        return kubectl(*words, given=script, seconds=180)

    def lmmpress(self, *words: str) -> str:
        """What a command of `lmmpress trigger` prints in the pod."""
        into = ["exec", "-n", self.release.namespace, f"deployment/{DEPLOYMENT}", "--", "lmmpress", "trigger"]
        return kubectl(*into, *words, seconds=180)

    def claims(self) -> list[Node]:
        return list(json.loads(self.lmmpress("ls", "--json", "--model", self.model)))

    def claim(self, *states: str, plan: str = "usual", seconds: float = 300) -> Node:
        """The claim of a plan, once it is in one of these states."""

        def look() -> Node | None:
            try:
                all_of_them = self.claims()
            except (AssertionError, subprocess.TimeoutExpired, ValueError):  # its pod is being replaced
                return None
            self.claims_seen = all_of_them
            mine = [one for one in all_of_them if one["question"]["plan_name"] == plan]
            return next((one for one in mine if one["state"] in states), None)

        try:
            return wait_for(f"a claim that is {' or '.join(states)}", look, seconds, 5) or {}
        except AssertionError as error:
            raise AssertionError(f"{error}: {json.dumps(self.claims_seen)[-3000:]}") from None

    def kill_servers(self) -> None:
        words = ["-l", "app.kubernetes.io/component=trigger", "--grace-period=0", "--force"]
        kubectl("delete", "pods", "-n", self.release.namespace, *words)

    def workflows(self, claim: Node) -> list[Node]:
        """The workflows that the engine has for a claim."""
        every = found("workflows", self.release.namespace)
        return [one for one in every if claim["run"] in json.dumps(one["metadata"])]

    def is_suspended(self, claim: Node) -> bool:
        """Whether Argo's workflow for a claim waits for a person."""
        every = [node for one in self.workflows(claim) for node in one.get("status", {}).get("nodes", {}).values()]
        return any(node["type"] == "Suspend" and node["phase"] == "Running" for node in every)

    def stage_began(self, stage: str, claim: Node) -> bool:
        """Whether a pod of a stage was made for the run of a claim."""
        names = {one["metadata"]["name"] for one in self.workflows(claim)}
        pods = found("pods", self.release.namespace, f"{STAGE_LABEL}={stage}")
        return any(one["metadata"]["labels"].get(WORKFLOW) in names for one in pods)

    def approve(self, stage: str) -> str:
        """Let the run of the other plan go on after a stage, once it waits for that; what came of it."""

        def said() -> str:
            return str(json.loads(self.python(_APPROVE.format(model=self.model, stage=stage))))

        return wait_for(f"{self.engine} to wait for the approval", said, 600, 10)

    def page(self) -> str:
        """The page of its model, as Ann sees it."""
        return self.python(_PAGE.format(model=self.model))

    def ask(self, path: str) -> Any:
        """What REST answers at a path, with the token, through the Service."""
        return json.loads(self.python(_ASK.format(path=path, host=DEPLOYMENT)))


_REGISTER = """
import json
from mlflow import MlflowClient

client = MlflowClient("http://127.0.0.1:5000")
client.create_registered_model("{model}")
made = client.create_model_version("{model}", "{address}", tags={{"lmmpress.address": "{address}"}})
print(json.dumps(str(made.version)))
"""
_RELEASE = """
import json
from mlflow import MlflowClient

MlflowClient("http://127.0.0.1:5000").set_registered_model_alias("{model}", "release", "1")
print(json.dumps("released"))
"""
_WEBHOOK = """
from pathlib import Path
from mlflow import MlflowClient

MlflowClient().create_webhook(
    name="lmmpress",
    url="{url}",
    events=["model_version.created", "model_version_alias.created"],
    secret=Path("/etc/lmmpress/secrets/webhook").read_text("utf-8").strip(),
)
"""
_ASK = """
import urllib.request
from pathlib import Path

token = Path("/etc/lmmpress/secrets/token").read_text("utf-8").strip()
asked = urllib.request.Request("http://{host}:8080/api/v1/{path}", headers={{"Authorization": "Bearer " + token}})
print(urllib.request.urlopen(asked, timeout=30).read().decode("utf-8"))
"""
_PAGE = """
import urllib.request

asked = urllib.request.Request("http://127.0.0.1:8080/models/{model}", headers={{"X-Auth-Request-User": "ann"}})
print(urllib.request.urlopen(asked, timeout=60).read().decode("utf-8"))
"""
_APPROVE = """
import json
from lmmpress.trigger.progress import approve_stage, progress_of
from lmmpress.trigger.settings import read_settings
from lmmpress.trigger.trigger import open_trigger

trigger = open_trigger(read_settings(None))
(claim,) = [one for one in trigger.claims.all("{model}") if one.question.plan_name == "other"]
progress = progress_of(trigger, claim)
waits = progress is not None and progress.missing == "{stage}"
print(json.dumps(approve_stage(trigger, claim, "{stage}", "ann") if waits else ""))
"""
