"""Values: each is described, checked, and changes something."""

import copy
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from support.chart import CASES, CHART, PLAN, Values, render_text, run_helm
from support.paths import ROOT


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"chart_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module


generate = load(ROOT / "helm" / "generate.py")


def trigger(server: Values | None = None, **watched: Any) -> Values:
    """Values of a trigger that watches one model."""
    models = {"antgmm": {"plans": {"a": {"plan": "plans/a.yaml"}}} | watched}
    settings = {"models": models} | ({"server": server} if server else {})
    return {"plans": {"a": PLAN}, "trigger": {"enabled": True, "settings": settings}}


REFUSED: dict[str, tuple[Values, str]] = {
    "unknown": ({"bogus": 1}, "bogus"),
    "unknown below": ({"mlflow": {"replica": 2}}, "replica"),
    "unknown in the profile": ({"profile": {"defaults": {"gpu": 1}}}, "gpu"),
    "unknown in another profile": ({"profiles": {"a": {"ttll": 1}}}, "ttll"),
    "another profile in the place of the first": ({"profiles": {"cluster": {}}}, "propertyName 'cluster'"),
    "unknown in a plan": ({"plans": {"a": PLAN | {"stage": {}}}}, "stage"),
    "no digest": ({"image": {"digest": "sha256:12"}}, "digest"),
    "no policy": ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
    "a password": ({"postgresql": {"password": "secret"}}, "password"),
    "credentials in an address": ({"mlflow": {"external": {"url": "https://me:pass@host"}}}, "url"),
    "no size": ({"minio": {"persistence": {"size": "many"}}}, "size"),
    "a quantity": ({"mlflow": {"resources": {"limits": {"memory": "4 GB"}}}}, "memory"),
    "root": ({"postgresql": {"user": 0}}, "user"),
    "no number": ({"mlflow": {"replicas": "two"}}, "replicas"),
    "no switch": ({"minio": {"enabled": "yes"}}, "enabled"),
    "no peer": ({"networkPolicy": {"dns": [{"podselector": {}}]}}, "podselector"),
    "no toleration": ({"mlflow": {"tolerations": [{"effekt": "NoSchedule"}]}}, "effekt"),
    "two stores": ({"objectStorage": {"external": {"endpoint": "https://s3.example.org"}}}, "minio.enabled=false"),
    "two MLflows": ({"mlflow": {"external": {"url": "https://mlflow.example.org"}}}, "mlflow.enabled=false"),
    "no MLflow": ({"mlflow": {"enabled": False}}, "mlflow.external.url"),
    "no database": ({"postgresql": {"enabled": False}}, "postgresql.external.host"),
    "no password's name": (
        {"postgresql": {"enabled": False, "external": {"host": "db.example.org"}}},
        "postgresql.existingSecret",
    ),
    "no queue behind it": ({"kueue": {"enabled": True}}, "kueue.clusterQueue"),
    "nobody to make users": ({"prepare": {"enabled": False}}, "prepare.enabled is false and minio.enabled true"),
    "everything below a prefix": ({"objectStorage": {"prefix": "store/*"}}, "prefix"),
    "no place to read": ({"objectStorage": {"read": ["https://models"]}}, "read"),
    "a certificate that nothing checks": (
        {"postgresql": {"enabled": False, "external": {"host": "db.example.org"}, "existingSecret": "db"}},
        "ca.existingConfigMap, or set postgresql.external.sslMode=require",
    ),
    "another engine": ({"engine": "airflow"}, "engine"),
    "Kubeflow's plugin without Kubeflow": (
        {"engine": "argo", "kubeflow": {"mlflowPlugin": {"byHand": True}}},
        "the plugin belongs to Kubeflow",
    ),
    "the plugin by hand and not": ({"kubeflow": {"mlflowPlugin": {"enabled": True, "byHand": True}}}, "both set"),
    "nobody": ({"argo": {"submitters": [{"kind": "Person", "name": "me"}]}}, "kind"),
    "no patience": ({"pipeline": {"patience": "soon"}}, "patience"),
    "another form of log": ({"pipeline": {"log": "xml"}}, "pipeline/log"),
    "a trigger that watches nothing": ({"trigger": {"enabled": True}}, "name the registered models"),
    "unknown in the trigger's settings": (trigger(policy={"most": 1}), "most"),
    "where its claims lie": ({"trigger": {"settings": {"store": "s3://other"}}}, "store"),
    "where it listens": ({"trigger": {"settings": {"server": {"port": 80}}}}, "port"),
    "a token in the values": ({"trigger": {"settings": {"server": {"tokens": [{"token": "hush"}]}}}}, "token"),
    "a plan that is not there": (trigger(plans={"a": {"plan": "plans/b.yaml"}}), "`plans`; it has a"),
    "a plan of somewhere else": (trigger(plans={"a": {"plan": "/plans/a.yaml"}}), "write plans/NAME.yaml"),
    "a profile that is not there": (
        trigger(plans={"a": {"plan": "plans/a.yaml", "cluster": "clusters/b.yaml"}}),
        "`profiles`; it has none",
    ),
    "runs in the trigger's own pod": (
        trigger(plans={"a": {"plan": "plans/a.yaml", "engine": "local"}}),
        "neither torch nor a GPU",
    ),
    "no order of plans": (
        trigger(plans={"a": {"plan": "plans/a.yaml"}, "b": {"plan": "plans/a.yaml"}}),
        "antgmm.default: there are several plans",
    ),
    "no order of stages": (
        {"plans": {"a": {"stages": {"ffn": {"step": 1, "max": 1}, "block": {"step": 1, "max": 1}}}}},
        "plans.a.stages: Helm does not keep the order",
    ),
    "runs for which the release is not made": (
        trigger(plans={"a": {"plan": "plans/a.yaml", "engine": "argo"}}),
        "made for kubeflow",
    ),
    "a profile for which the release is not made": ({"profiles": {"a": {"engine": "argo"}}}, "made for kubeflow"),
    "a secret of no Secret": (
        trigger(server={"webhook_secrets": [{"file": "secrets/webhook"}]}),
        "trigger.secrets.webhook",
    ),
    "a Secret without a key": ({"trigger": {"secrets": {"a": {"secret": "b"}}}}, "key"),
    "an Ingress for no host": (
        trigger() | {"trigger": trigger()["trigger"] | {"ingress": {"enabled": True}}},
        "trigger.ingress.host",
    ),
    "a route to no Gateway": (
        trigger() | {"trigger": trigger()["trigger"] | {"httpRoute": {"enabled": True}}},
        "trigger.httpRoute.parentRefs",
    ),
    "several nodes without the right to make trainings": (
        {"profile": {"components": {"distill": {"nodes": 2}}}},
        "profile.components.distill.nodes is 2, and pipelines may make no trainings of Kubeflow Trainer",
    ),
    "several nodes in another profile": (
        {"profiles": {"large": {"components": {"distill": {"nodes": 4}}}}},
        "profiles.large.components.distill.nodes is 4",
    ),
    "a runtime without a name": (
        {"trainer": {"enabled": True, "runtime": {"create": False}}},
        "trainer.runtime.name: name the existing ClusterTrainingRuntime",
    ),
    "restarts backwards": ({"trainer": {"runtime": {"maxRestarts": -1}}}, "maxRestarts"),
    "no account": ({"pipeline": {"serviceAccount": {"create": False}}}, "pipeline.serviceAccount.name"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_values_that_contradict_each_other_or_are_unknown_are_refused(fault: str) -> None:
    values, word = REFUSED[fault]
    done = run_helm("template", "press", str(CHART), values=values)
    assert done.returncode != 0
    assert word in done.stderr


def test_schema_and_readme_are_current() -> None:
    for path, text in generate.made().items():
        assert path.read_text("utf-8") == text, "python helm/generate.py"


def test_every_value_is_described() -> None:
    values = generate.read_values()
    described = {value.path for value in values}
    tree = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    assert set(generate.leaves(tree, described)) == described
    assert all(value.description and not value.description.endswith(".") for value in values)


CHANGED: dict[str, Any] = {
    "digest": "sha256:" + "2" * 64,
    "pullPolicy": "Always",
    "imagePullSecrets": ["other"],
    "rbac.secrets": ["other"],
    "allowedHosts": ["other.example.org"],
    "resources": {"requests": {"cpu": "7"}},
    "nodeSelector": {"other": "label"},
    "tolerations": [{"key": "other", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
    "topologySpreadConstraints": [],
    "size": "7Gi",
    "sslMode": "require",
    "scope": "own",
    "interval": "7s",
    "external.url": "https://other.example.org",
    "external.endpoint": "https://other.example.org",
    "kubeflow.host": "https://other.example.org",
    "profile": {"ttl": 7},
    "pipelineEgress": [{"ports": [{"port": 777}]}],
    "profiles": {"other": {"ttl": 7}},
    "plans": {"other": PLAN},
    "networkPolicy.mlflow": [{"ipBlock": {"cidr": "10.7.0.0/16"}}],
    "objectStorage.read": ["other", "s3://another/place"],
    "engine": "argo",
    "argo.ui": "https://other.example.org",
    "trigger.settings": {"models": {"other": {"plans": {"usual": {"plan": "plans/antgmm.yaml"}}}}},
    "trigger.secrets": {"other": {"secret": "other", "key": "other"}},
    "triggerEgress": [{"ports": [{"port": 777}]}],
    "ingress.host": "other.example.org",
    "parentRefs": [{"name": "other"}],
    "hostnames": ["other.example.org"],
    "paths": ["/other"],
    "submitters": [{"kind": "User", "name": "other"}],
    "patience": "7m",
    "pipeline.log": "json",
}


def changed(path: str, default: Any) -> Any:
    parts = path.split(".")
    for length in (2, 1):
        if (end := ".".join(parts[-length:])) in CHANGED:
            return CHANGED[end]
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default + 7
    if isinstance(default, str):
        return "changed"
    if isinstance(default, dict):
        return {"changed": "yes"}
    return [777] if path.endswith("Ports") else [{"ipBlock": {"cidr": "10.7.0.0/16"}}]


def merged(values: Values, path: str, value: Any) -> Values:
    values = copy.deepcopy(values)
    *above, key = path.split(".")
    at = values
    for part in above:
        at = at.setdefault(part, {})
    at[key] = value
    return values


def masked(text: str) -> str:
    """The text without random values."""
    return re.sub(r"^  (AWS_ACCESS_KEY_ID|AWS_SECRET_ACCESS_KEY|password): \S+$", "", text, flags=re.MULTILINE)


BEFORE = ("everything", "external", "database", "argo", "trigger", "trainer")
GROUPS = sorted({value.path.split(".")[0] for value in generate.read_values()})


@pytest.mark.parametrize("group", GROUPS)
def test_every_value_changes_something(group: str) -> None:
    """Each value, changed, changes what is rendered in at least one case."""
    before = {case: masked(render_text(*CASES[case])) for case in BEFORE}
    unused = []
    for value in generate.read_values():
        if value.path.split(".")[0] == group:
            for case, was in sorted(before.items(), key=lambda one: one[0] != group):
                values, apis = CASES[case]
                now = values
                for part in value.path.split("."):
                    now = now.get(part, {}) if isinstance(now, dict) else {}
                # a switch is turned from where the case has it
                start = now if isinstance(now, bool) else value.default
                other = merged(values, value.path, changed(value.path, start))
                command = ["template", "press", str(CHART), "--namespace", "team", "--kube-version", "1.34.0"]
                for api in apis:
                    command += ["--api-versions", api]
                done = run_helm(*command, values=other)
                if "values don't meet the specifications of the schema" in done.stderr:
                    pytest.fail(f"{value.path}: {done.stderr}")
                # what the chart refuses to go with the rest, it has read
                if done.returncode or masked(done.stdout) != was:
                    break
            else:
                unused.append(value.path)
    assert not unused
