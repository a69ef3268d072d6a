"""The Helm chart, without a cluster: real Helm, the schemas of Kubernetes, a server that keeps objects, the hook."""

import copy
import difflib
import functools
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from support.chart import (
    CASES,
    CHART,
    CUSTOM,
    DIGEST,
    PLAN,
    VERSIONS,
    Object,
    Values,
    containers,
    in_all_cases,
    one,
    parsed,
    pods,
    render,
    render_text,
    run_helm,
    unavailable,
)
from support.kubernetes_objects import Kubernetes
from support.minio_users import MinioUsers
from support.paths import ROOT
from support.postgresql import postgresql, programs
from support.real_checkov import find_checkov
from support.s3 import MiniStack, Proxy, answer, free_port, wait_for

from lmmpress.doctor.demands import account, home
from lmmpress.doctor.permissions import RUNNING
from lmmpress.plan import parse_plan
from lmmpress.store.connection import connect
from lmmpress.store.rights import Place, policy
from lmmpress.tasks.profile import Profile, read_profile

GOLDEN = Path(__file__).parent / "golden"
CRDS = Path(__file__).parent / "crds"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"chart_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module


generate = load(ROOT / "helm" / "generate.py")


@in_all_cases
def test_lint_finds_nothing(case: str) -> None:
    done = run_helm("lint", "--strict", str(CHART), values=CASES[case][0])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout
    assert "[ERROR]" not in done.stdout


@functools.cache
def custom_schema(kind: str) -> Any:
    import jsonschema
    from referencing import Registry, Resource
    from referencing.jsonschema import DRAFT202012

    name = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"}
    strings = {"type": "object", "additionalProperties": {"type": "string"}}
    key = {"type": "object", "additionalProperties": False, "properties": {"name": name, "key": {"type": "string"}}}
    shared = {
        "metadata": {
            "type": "object",
            "additionalProperties": False,
            "required": ["name"],
            "properties": {"name": name, "namespace": name, "labels": strings, "annotations": strings},
        },
        "duration": {"type": "string", "pattern": r"^(0|(\d+d)?(\d+h)?(\d+m)?(\d+s)?)$"},
        "key": key,
    }
    registry = Registry().with_resources(
        (uri, Resource.from_contents(schema, default_specification=DRAFT202012)) for uri, schema in shared.items()
    )
    schema = json.loads((CRDS / f"{kind.lower()}.json").read_text("utf-8"))
    return jsonschema.Draft202012Validator(schema, registry=registry)


@pytest.mark.parametrize("version", VERSIONS)
@in_all_cases
def test_every_object_is_what_kubernetes_takes(case: str, version: str) -> None:
    import kubernetes_validate

    objects = render(case, version)
    for found in objects:
        if found["kind"] in CUSTOM:
            faults = list(custom_schema(found["kind"]).iter_errors(found))
        else:
            faults = []
            kubernetes_validate.validate(found, version.rsplit(".", 1)[0], strict=True)
        assert not faults, (found["kind"], found["metadata"]["name"], [fault.message for fault in faults])
    named = [(found["kind"], found["metadata"]["name"]) for found in objects]
    assert len(named) == len(set(named))
    assert all(found["metadata"]["namespace"] == "team" for found in objects)
    assert all(len(found["metadata"]["name"]) <= 63 for found in objects)


def test_custom_resources_are_checked_at_all() -> None:
    for kind in CUSTOM:
        (found,) = (found for found in render("everything") if found["kind"] == kind)
        assert not list(custom_schema(kind).iter_errors(found))
        assert list(custom_schema(kind).iter_errors(found | {"spec": found["spec"] | {"unknown": 1}}))


@in_all_cases
def test_what_is_rendered_is_what_it_was(case: str, request: pytest.FixtureRequest) -> None:
    """With --write-docs the files are written anew."""
    objects = render(case)
    for found in objects:
        if found["kind"] == "Secret":
            found["data"] = dict.fromkeys(found["data"], "(made at random)")
        if found["kind"] == "ConfigMap":
            for key in found["data"]:
                if key.endswith((".py", ".json")):
                    found["data"][key] = "(a file of the chart)"
    objects.sort(key=lambda found: (found["kind"], found["metadata"]["name"]))
    text = yaml.safe_dump_all(objects, sort_keys=True, width=120)
    path = GOLDEN / f"chart-{case}.yaml"
    if request.config.getoption("--write-docs", default=False) or os.environ.get("WRITE_GOLDEN"):
        path.write_text(text, "utf-8")
    before = path.read_text("utf-8")
    change = "\n".join(difflib.unified_diff(before.splitlines(), text.splitlines(), "was", "is", lineterm="", n=6))
    assert before == text, f"pytest tests/chart/test_chart.py --write-docs, if this is meant:\n{change}"


@in_all_cases
def test_pods_keep_to_the_restricted_standard(case: str) -> None:
    found = pods(render(case))
    assert found
    for name, pod in found.items():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        allowed = {"name", "configMap", "emptyDir", "secret", "persistentVolumeClaim", "projected"}
        assert all(volume.keys() <= allowed for volume in spec["volumes"]), name
        for container in containers(pod):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert context["privileged"] is False, name
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}, name
            assert "memory" in container["resources"]["limits"], name
            assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"], name


# What checkov holds against the chart, of which objects, and why it stays. Without an account it tells no severities:
# so everything that it finds counts.
EVERY = "mlflow minio postgresql prepare check-store check-mlflow"
EXPLAINED = {
    "CKV_K8S_8": ("check-store check-mlflow", "liveness of a pod that looks and ends"),
    "CKV_K8S_9": ("check-store check-mlflow", "readiness of the same"),
    "CKV_K8S_11": (EVERY, "a limit of CPU slows a server down on an idle node; memory has one"),
    "CKV_K8S_15": (EVERY, "what a digest names is the same whenever it is pulled; pullPolicy is a value"),
    "CKV_K8S_35": (EVERY, "Secrets as variables: that is how the clients of S3, PostgreSQL and MLflow read them"),
    "CKV_K8S_40": ("postgresql", "its image has a user below 10000; a value"),
    "CKV_K8S_43": (EVERY, "digests are given by who installs; the notes warn where ours has none"),
}


@pytest.mark.long
def test_a_policy_scan_finds_nothing_that_is_not_explained(tmp_path: Path) -> None:
    program, why = find_checkov()
    if program is None:
        unavailable(why)
    for case in CASES:
        (tmp_path / f"{case}.yaml").write_text(yaml.safe_dump_all(render(case)), "utf-8")
    command = [program, "--directory", tmp_path, "--framework", "kubernetes", "--output", "json", "--compact"]
    done = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", check=False, env=os.environ | {"LOG_LEVEL": "ERROR"}
    )
    results = json.loads(done.stdout)["results"]
    assert len(results["passed_checks"]) > 1000, "it has looked"
    found: dict[str, set[str]] = {}
    for one_of in results["failed_checks"]:
        found.setdefault(one_of["check_id"], set()).add(one_of["resource"].partition("press-lmmpress-")[2])
    assert found == {check: set(objects.split()) for check, (objects, _) in EXPLAINED.items()}


@in_all_cases
def test_roles_name_what_they_allow(case: str) -> None:
    objects = render(case)
    for role in (found for found in objects if found["kind"] == "Role"):
        for rule in role["rules"]:
            assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])
            assert "pods/exec" not in rule["resources"]
            if {"secrets", "configmaps"} & set(rule["resources"]):
                assert rule["resourceNames"], "every Secret of the namespace would be open"
                assert rule["verbs"] == ["get"]
    assert not [found for found in objects if found["kind"].startswith("Cluster")]
    accounts = {found["metadata"]["name"]: found for found in objects if found["kind"] == "ServiceAccount"}
    with_token = [name for name, found in accounts.items() if found["automountServiceAccountToken"]]
    assert len(with_token) == 1, "only the pipeline's pods call Kubernetes"
    assert {pod["spec"]["serviceAccountName"] for pod in pods(objects).values()} == accounts.keys() - set(with_token)


@in_all_cases
def test_everything_that_is_named_is_there(case: str) -> None:
    """Volumes, variables and services refer to objects of the chart, or to what the values name."""
    objects = render(case)
    known = {(found["kind"], found["metadata"]["name"]) for found in objects}
    said = json.dumps(CASES[case][0])
    for name, pod in pods(objects).items():
        wanted = []
        for volume in pod["spec"]["volumes"]:
            if "secret" in volume:
                wanted.append(("Secret", volume["secret"]["secretName"]))
            if "configMap" in volume:
                wanted.append(("ConfigMap", volume["configMap"]["name"]))
        for container in containers(pod):
            for variable in container["env"]:
                if "valueFrom" in variable:
                    secret = variable["valueFrom"]["secretKeyRef"]
                    wanted.append(("Secret", secret["name"]))
                    if ("Secret", secret["name"]) in known:
                        assert secret["key"] in one(objects, "Secret", secret["name"])["data"]
                else:
                    assert not re.search("PASSWORD|SECRET", variable["name"]), (name, variable)
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            templates = {"data"} if name.endswith(("minio", "postgresql")) else set()
            assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]} | templates
            names = [variable["name"] for variable in container["env"]]
            assert len(names) == len(set(names)), names
        for kind, other in wanted:
            assert (kind, other) in known or f'"{other}"' in said, (name, kind, other)
    for service in (found for found in objects if found["kind"] == "Service"):
        chosen = [pod for pod in pods(objects).values() if matches(service["spec"]["selector"], pod)]
        assert len(chosen) == 1
        ports = {port["name"] for container in chosen[0]["spec"]["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def matches(labels: dict[str, str], pod: Object) -> bool:
    return labels.items() <= pod["metadata"]["labels"].items()


def selected(selector: Object, labels: dict[str, str]) -> bool:
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    return all(one["operator"] == "Exists" and one["key"] in labels for one in selector.get("matchExpressions", []))


class Network:
    """What NetworkPolicies of one namespace let through between its pods: for each direction, the policies that select
    a pod, and whether a rule of one of them has the other pod and the port."""

    def __init__(self, objects: list[Object]) -> None:
        self.policies = [found["spec"] for found in objects if found["kind"] == "NetworkPolicy"]

    def passes(self, source: dict[str, str], target: dict[str, str], port: int) -> bool:
        return self._side("Egress", source, target, port) and self._side("Ingress", target, source, port)

    def reaches(self, source: dict[str, str], cidr: str, port: int) -> bool:
        """Whether a pod may call an address outside of the cluster."""
        return any(
            port in [one["port"] for one in rule["ports"]] and {"ipBlock": {"cidr": cidr}} in rule["to"]
            for policy in self.policies
            if selected(policy["podSelector"], source)
            for rule in policy.get("egress", [])
        )

    def _side(self, direction: str, pod: dict[str, str], other: dict[str, str], port: int) -> bool:
        key = direction.lower()
        mine = [
            policy
            for policy in self.policies
            if direction in policy["policyTypes"] and selected(policy["podSelector"], pod)
        ]
        return not mine or any(
            port in [one["port"] for one in rule["ports"]]
            and any(
                "podSelector" in peer and "namespaceSelector" not in peer and selected(peer["podSelector"], other)
                for peer in rule["from" if key == "ingress" else "to"]
            )
            for policy in mine
            for rule in policy.get(key, [])
        )


def test_pods_call_whom_they_need_and_nobody_else() -> None:
    objects = render("minimal")
    found = {name: pod["metadata"]["labels"] for name, pod in pods(objects).items()}
    who = {
        "pipeline": {"workflows.argoproj.io/workflow": "a-run", "pipelines.kubeflow.org/v2_component": "true"},
        "mlflow": found["press-lmmpress-mlflow"],
        "postgresql": found["press-lmmpress-postgresql"],
        "minio": found["press-lmmpress-minio"],
        "prepare": found["press-lmmpress-prepare"],
        "check": found["press-lmmpress-check-store"],
        "stranger": {"app": "notebook"},
    }
    ports = {"mlflow": 5000, "postgresql": 5432, "minio": 9000, "pipeline": 8080, "prepare": 8080, "check": 8080}
    network = Network(objects)
    allowed = {
        (source, target)
        for source in who
        for target in ports
        if source != target and network.passes(who[source], who[target], ports[target])
    }
    needed = {("mlflow", "postgresql"), ("mlflow", "minio")}
    needed |= {(source, target) for source in ("pipeline", "prepare", "check") for target in ("mlflow", "minio")}
    assert allowed == needed
    # DNS, and Kubernetes' API for the pipeline alone
    assert network.reaches(who["pipeline"], "0.0.0.0/0", 6443)
    for name in ("mlflow", "postgresql", "minio", "prepare"):
        assert not network.reaches(who[name], "0.0.0.0/0", 6443)
        assert any(
            selected(policy["podSelector"], who[name])
            and any({"port": 53, "protocol": "UDP"} in rule["ports"] for rule in policy.get("egress", []))
            for policy in network.policies
        )


def test_outside_servers_are_reached_on_their_ports() -> None:
    pipeline = {"workflows.argoproj.io/workflow": "a-run"}
    network = Network(render("external"))
    assert network.reaches(pipeline, "10.1.0.0/16", 8443)
    assert not network.reaches(pipeline, "10.1.0.0/16", 443)
    assert network.reaches(pipeline, "0.0.0.0/0", 443)
    objects = render("database")
    server = pods(objects)["press-lmmpress-mlflow"]["metadata"]["labels"]
    network = Network(objects)
    assert network.reaches(server, "10.2.0.0/16", 6432)
    assert network.reaches(pipeline, "0.0.0.0/0", 9000)
    assert not network.reaches(pipeline, "10.2.0.0/16", 6432)


@in_all_cases
def test_the_profile_is_one_that_compile_reads(case: str, tmp_path: Path) -> None:
    objects = render(case)
    path = tmp_path / "cluster.yaml"
    path.write_text(one(objects, "ConfigMap", "press-lmmpress-cluster")["data"]["cluster.yaml"], "utf-8")
    profile = read_profile(path)
    assert profile.kubeflow.namespace == "team"
    assert profile.image in [container["image"] for pod in pods(objects).values() for container in containers(pod)]
    assert bool(profile.warnings()) == ("image" not in CASES[case][0]), "without a digest there is a warning"
    if case == "everything":
        path.write_text(one(objects, "ConfigMap", "press-lmmpress-cluster")["data"]["small.yaml"], "utf-8")
        small = read_profile(path)
        assert (small.pod("distill").gpus, small.pod("distill").shm, small.ttl) == (1, "4Gi", profile.ttl)
        assert profile.ttl == 2592000
        assert profile.pod("distill").gpus == 4
        assert profile.environment["NCCL_DEBUG"] == "INFO"
        assert profile.environment["AWS_CA_BUNDLE"] == "/kfp/certs/ca.crt"
        assert profile.cache.claim == one(objects, "PersistentVolumeClaim", "press-lmmpress-cache")["metadata"]["name"]
        assert profile.queue == one(objects, "LocalQueue", "lmmpress")["metadata"]["name"]
        assert profile.pull_secrets == ["registry"]
        plan = yaml.safe_load(one(objects, "ConfigMap", "press-lmmpress-plans")["data"]["antgmm.yaml"])
        assert parse_plan(plan).model == "s3://models/antgmm"
    if case == "external":
        assert profile.secrets.mlflow is not None
        assert profile.secrets.mlflow.keys["username"] == "MLFLOW_TRACKING_USERNAME"
        assert profile.environment["AWS_ENDPOINT_URL"] == "https://s3.example.org:8443"
    if case == "database":
        assert profile.secrets.store is None, "the role of the service account"
        assert "AWS_ENDPOINT_URL" not in profile.environment


def test_the_rights_of_pods_are_those_that_the_doctor_asks_for() -> None:
    objects = render("minimal")
    profile = Profile.model_validate(
        yaml.safe_load(one(objects, "ConfigMap", "press-lmmpress-cluster")["data"]["cluster.yaml"])
    )
    binding = one(objects, "RoleBinding", "press-lmmpress-pipeline")
    assert [(home(profile), account(profile))] == [(one["namespace"], one["name"]) for one in binding["subjects"]]
    given = {
        (verb, group, resource, name)
        for rule in one(objects, "Role", binding["roleRef"]["name"])["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
    }
    asked = {(right.verb, right.group, right.resource, right.name) for right in RUNNING}
    # Kubeflow's object store may be one that needs no Secret: what is in it the doctor does not ask for
    assert given - asked == {("get", "", "secrets", "mlpipeline-minio-artifact")}
    assert asked <= given


def test_kubeflows_plugin_is_told_what_it_knows() -> None:
    """Unknown settings are an error there (Kubeflow Pipelines 2.17)."""
    known = {"experimentDescription", "defaultExperimentName", "injectUserEnvVars", "credentialSecretRef"}
    for case in ("everything", "external"):
        data = one(render(case), "ConfigMap", "kfp-launcher")["data"]
        said = json.loads(data["plugins.mlflow"])
        assert said.keys() == {"settings"}
        assert said["settings"].keys() <= known
        assert ("credentialSecretRef" in said["settings"]) == (case == "external")
    assert not [found for found in render("minimal") if found["metadata"]["name"] == "kfp-launcher"]


def test_images_come_from_the_mirror() -> None:
    objects = render("airgapped")
    named = {container["image"] for pod in pods(objects).values() for container in containers(pod)}
    assert named == {
        f"mirror.example.org:5000/all/lmmpress@{DIGEST}",
        f"mirror.example.org:5000/all/lmmpress-mlflow@{DIGEST}",
        "mirror.example.org:5000/all/library/postgres:17-bookworm",
        "mirror.example.org:5000/all/minio/minio:RELEASE.2025-09-07T16-13-09Z",
    }
    for pod in pods(objects).values():
        assert pod["spec"]["imagePullSecrets"] == [{"name": "mirror"}]
    # the README's command finds them
    text = render_text(*CASES["airgapped"])
    found = {line.split()[1] for line in re.findall(r"^ +image: .+", text, re.MULTILINE)}
    assert found == named


def test_the_list_of_images_is_that_of_the_values() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    listed = {one["image"] for one in yaml.safe_load(chart["annotations"]["artifacthub.io/images"])}
    assert listed == {container["image"] for pod in pods(render("minimal")).values() for container in containers(pod)}
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert f'version = "{chart["appVersion"]}"' in project


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
    "no account": ({"pipeline": {"serviceAccount": {"create": False}}}, "pipeline.serviceAccount.name"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_cannot_be_meant_is_refused(fault: str) -> None:
    values, word = REFUSED[fault]
    done = run_helm("template", "press", str(CHART), values=values)
    assert done.returncode != 0
    assert word in done.stderr


def test_without_their_apis_custom_resources_are_left_out() -> None:
    values = CASES["everything"][0]
    kinds = {found["kind"] for found in parsed(render_text(values))}
    assert not kinds & {"ServiceMonitor", "PrometheusRule", "LocalQueue"}


def test_dashboard_and_rules_can_be_read() -> None:
    objects = render("everything")
    dashboard = json.loads(one(objects, "ConfigMap", "press-lmmpress-dashboard")["data"]["press-lmmpress.json"])
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    (rules,) = (found for found in objects if found["kind"] == "PrometheusRule")
    asked += [rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"]]
    for expression in asked:
        assert 'namespace="team"' in expression
        assert "@" not in expression
        assert all(expression.count(a) == expression.count(b) for a, b in ("()", "{}", "[]"))
    names = [rule["alert"] for group in rules["spec"]["groups"] for rule in group["rules"]]
    assert len(names) == len(set(names)) == 6


# Values, and what follows from them


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
    """Without what is made at random."""
    return re.sub(r"^  (AWS_ACCESS_KEY_ID|AWS_SECRET_ACCESS_KEY|password): \S+$", "", text, flags=re.MULTILINE)


GROUPS = sorted({value.path.split(".")[0] for value in generate.read_values()})


@pytest.mark.parametrize("group", GROUPS)
def test_every_value_changes_something(group: str) -> None:
    """Set to something else, each makes another render, in one of the cases at least."""
    before = {case: masked(render_text(*CASES[case])) for case in ("everything", "external", "database")}
    unused = []
    for value in generate.read_values():
        if value.path.split(".")[0] == group:
            for case, was in before.items():
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


# Releases, on a server that keeps objects


@pytest.fixture
def kubernetes(tmp_path: Path) -> Iterator[Kubernetes]:
    server = Kubernetes(tmp_path)
    yield server
    server.close()
    assert server.unknown == []


def release(server: Kubernetes, *arguments: str, values: Values | None = None) -> subprocess.CompletedProcess[str]:
    command = [*arguments, "--kubeconfig", str(server.config), "--namespace", "team", "--no-hooks"]
    command += ["--qps", "1000", "--burst-limit", "1000"]
    if arguments[0] in ("install", "upgrade"):
        command.append("--disable-openapi-validation")
    return run_helm(*command, values=values)


OWN_SECRETS = ("store", "pipeline-store", "mlflow-store", "postgresql")


def test_secrets_survive_upgrade_rollback_and_removal(kubernetes: Kubernetes) -> None:
    def done(*arguments: str, values: Values | None = None) -> None:
        result = release(kubernetes, *arguments, values=values)
        assert result.returncode == 0, result.stderr

    def secrets() -> list[dict[str, str]]:
        return [kubernetes.secret("team", f"lmmpress-{name}") for name in OWN_SECRETS]

    def workers() -> str:
        (found,) = (found for found in kubernetes.objects.values() if found["kind"] == "Deployment")
        arguments = found["spec"]["template"]["spec"]["containers"][0]["args"]
        return str(arguments[arguments.index("--workers") + 1])

    done("install", "lmmpress", str(CHART))
    first = secrets()
    assert [sorted(len(value) for value in one.values()) for one in first] == [[20, 40], [20, 40], [20, 40], [40]]
    assert len({value for one in first for value in one.values()}) == 7, "nobody has what is another's"
    before = copy.deepcopy(kubernetes.objects)
    done("upgrade", "lmmpress", str(CHART))
    for path, found in kubernetes.objects.items():
        if "helm.sh.release" not in path and "/secrets/sh.helm" not in path:
            assert {key: value for key, value in found.items() if key != "metadata"} == {
                key: value for key, value in before[path].items() if key != "metadata"
            }, path
    done("upgrade", "lmmpress", str(CHART), values={"mlflow": {"workers": 5}})
    assert (secrets(), workers()) == (first, "5")
    done("rollback", "lmmpress", "1")
    assert (secrets(), workers()) == (first, "2")
    done("uninstall", "lmmpress")
    assert kubernetes.named("Secret") == {f"lmmpress-{name}" for name in OWN_SECRETS}
    assert {found["kind"] for found in kubernetes.objects.values()} == {"Secret"}
    done("install", "lmmpress", str(CHART))
    assert secrets() == first


def secret(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


def test_a_secret_that_lacks_its_key_is_not_made_anew(kubernetes: Kubernetes) -> None:
    kubernetes.put("team", secret("lmmpress-postgresql", other="eA=="))
    result = release(kubernetes, "install", "lmmpress", str(CHART))
    assert result.returncode != 0
    assert "Secret lmmpress-postgresql exists but has no key password" in result.stderr
    assert kubernetes.named("Secret") == {"lmmpress-postgresql"}


def test_kubeflows_copy_of_mlflows_credentials(kubernetes: Kubernetes) -> None:
    kubernetes.put("team", secret("own", username="bWU=", password="cGFzcw==", other="eA=="))
    values = copy.deepcopy(CASES["external"][0])
    values["mlflow"]["external"]["existingSecret"] = "own"
    result = release(kubernetes, "install", "lmmpress", str(CHART), values=values)
    assert result.returncode == 0, result.stderr
    assert kubernetes.secret("team", "kfp-mlflow-credentials") == {"username": "me", "password": "pass"}
    assert "me" not in result.stdout.split()
    assert "pass" not in result.stdout.split()


def test_pipelines_and_mlflow_never_have_the_keys_of_minio_itself() -> None:
    objects = render("everything")
    root = {"press-lmmpress-minio", "press-lmmpress-prepare"}
    for name, pod in pods(objects).items():
        named = {
            variable["name"]: variable["valueFrom"]["secretKeyRef"]["name"]
            for container in containers(pod)
            for variable in container["env"]
            if "valueFrom" in variable
        }
        assert ("press-lmmpress-store" in named.values()) == (name in root), name
        if name.endswith(("check-store", "check-mlflow")):
            assert named["AWS_ACCESS_KEY_ID"] == "press-lmmpress-pipeline-store", "what a task has"
        if name.endswith("lmmpress-mlflow"):
            assert named["AWS_ACCESS_KEY_ID"] == "press-lmmpress-mlflow-store"
    data = one(objects, "ConfigMap", "press-lmmpress-cluster")["data"]
    secret = Profile.model_validate(yaml.safe_load(data["cluster.yaml"])).secrets.store
    assert secret is not None
    assert secret.name == "press-lmmpress-pipeline-store"
    assert "press-lmmpress-store" not in json.dumps(data)


def test_secrets_of_ones_own_go_before_those_of_the_chart() -> None:
    values: Values = {
        "pipeline": {"existingSecret": "ours"},
        "mlflow": {"artifacts": {"existingSecret": "servers"}},
        "objectStorage": {"existingSecret": "root"},
    }
    objects = parsed(render_text(values))
    assert {found["metadata"]["name"] for found in objects if found["kind"] == "Secret"} == {
        "press-lmmpress-postgresql"
    }
    for pod, variable, secret in (
        ("press-lmmpress-minio", "MINIO_ROOT_USER", "root"),
        ("press-lmmpress-prepare", "AWS_ACCESS_KEY_ID", "root"),
        ("press-lmmpress-prepare", "PIPELINE_ACCESS_KEY_ID", "ours"),
        ("press-lmmpress-prepare", "MLFLOW_ACCESS_KEY_ID", "servers"),
        ("press-lmmpress-check-store", "AWS_ACCESS_KEY_ID", "ours"),
        ("press-lmmpress-mlflow", "AWS_ACCESS_KEY_ID", "servers"),
    ):
        (found,) = (entry for entry in containers(pods(objects)[pod])[0]["env"] if entry["name"] == variable)
        assert found["valueFrom"]["secretKeyRef"]["name"] == secret, (pod, variable)
    # an outside server: one Secret for all, or one for each
    outside = {"minio": {"enabled": False}, "objectStorage": {"existingSecret": "all"}}
    for more, pipelines, server in (({}, "all", "all"), ({"pipeline": {"existingSecret": "ours"}}, "ours", "all")):
        objects = parsed(render_text(outside | more))
        check, tracking = (
            containers(pods(objects)[f"press-lmmpress-{name}"])[0]["env"] for name in ("check-store", "mlflow")
        )
        for env, name in ((check, pipelines), (tracking, server)):
            (found,) = (entry for entry in env if entry["name"] == "AWS_ACCESS_KEY_ID")
            assert found["valueFrom"]["secretKeyRef"]["name"] == name
        assert "USERS" not in [entry["name"] for entry in containers(pods(objects)["press-lmmpress-prepare"])[0]["env"]]


def test_an_upgrade_from_one_pair_of_keys_for_all_makes_the_others_and_says_so(kubernetes: Kubernetes) -> None:
    assert release(kubernetes, "install", "lmmpress", str(CHART)).returncode == 0
    root = kubernetes.secret("team", "lmmpress-store")
    # as an earlier chart left it: one Secret, which pipelines that were compiled then still name
    for path in [
        path for path in kubernetes.objects if path.endswith(("/lmmpress-pipeline-store", "/lmmpress-mlflow-store"))
    ]:
        del kubernetes.objects[path]
    done = release(kubernetes, "upgrade", "lmmpress", str(CHART))
    assert done.returncode == 0, done.stderr
    assert "pipelines have their own keys, in the Secret lmmpress-pipeline-store" in done.stdout
    assert "use the root keys of MinIO, in the Secret lmmpress-store, and still" in done.stdout
    assert kubernetes.secret("team", "lmmpress-store") == root
    made = [kubernetes.secret("team", f"lmmpress-{name}") for name in OWN_SECRETS]
    again = release(kubernetes, "upgrade", "lmmpress", str(CHART))
    assert "keys of their own" not in again.stdout, "once"
    assert [kubernetes.secret("team", f"lmmpress-{name}") for name in OWN_SECRETS] == made


def test_notes_say_the_next_command(kubernetes: Kubernetes) -> None:
    result = release(kubernetes, "install", "lmmpress", str(CHART), values=CASES["everything"][0])
    assert result.returncode == 0, result.stderr
    for line in (
        "helm test lmmpress -n team",
        "kubectl get configmap lmmpress-cluster -n team -o jsonpath='{.data.cluster\\.yaml}' > cluster.yaml",
        "kubectl get configmap lmmpress-plans -n team -o jsonpath='{.data.antgmm\\.yaml}' > plan.yaml",
        "lmmpress submit plan.yaml --cluster cluster.yaml --set store=s3://lmmpress/store --wait",
        "WARNING: Kueue is not installed in this cluster",
    ):
        assert line in result.stdout
    assert "image.digest is empty" not in result.stdout


# The files that the hook and the tests run, as they are in the pods


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MiniStack]:
    folder = tmp_path_factory.mktemp("chart-s3") / "data"
    folder.mkdir()
    server = MiniStack(folder, free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def mlflow_server(s3: MiniStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """MLflow as the chart starts it: arguments and environment of its pod, after files/migrate.py, on PostgreSQL and
    the S3 server. Only addresses are this machine's, and of its processes there is one.
    """
    bin = programs()
    if bin is None:
        unavailable("PostgreSQL's server is not installed: apt-get install postgresql")
    pod = pods(render("minimal"))["press-lmmpress-mlflow"]["spec"]
    port = free_port()
    arguments = pod["containers"][0]["args"]
    for flag, value in (("--host", "127.0.0.1"), ("--port", str(port)), ("--workers", "1")):
        arguments[arguments.index(flag) + 1] = value
    folder = tmp_path_factory.mktemp("chart-mlflow")
    with postgresql(bin, "mlflow", "a password", "mlflow") as database:
        environment = pod_environment("lmmpress-mlflow", s3.endpoint, s3, MLFLOW_S3_ENDPOINT_URL=s3.endpoint)
        address = environment["MLFLOW_BACKEND_STORE_URI"]
        assert address == "postgresql+psycopg2://mlflow@press-lmmpress-postgresql:5432/mlflow"
        environment["MLFLOW_BACKEND_STORE_URI"] = re.sub("@[^/]+", f"@127.0.0.1:{database}", address)
        done = run_script("migrate", environment)
        assert done.returncode == 0, done.stdout + done.stderr
        with (folder / "log").open("wb") as log:
            command = [sys.executable, "-m", "mlflow", *arguments]
            server = subprocess.Popen(
                command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True
            )
        try:
            wait_for(f"http://127.0.0.1:{port}/health")
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(server.pid, signal.SIGKILL)  # the server and its workers, which are a group of their own
            server.wait(timeout=30)


def run_script(name: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A file as it lies in the ConfigMap, by the interpreter of the tests."""
    data = one(render("minimal"), "ConfigMap", "press-lmmpress-scripts")["data"]
    command = [sys.executable, "-c", data[f"{name}.py"]]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, encoding="utf-8", check=False, timeout=600
    )


def pod_environment(name: str, endpoint: str, server: MiniStack, **more: str) -> dict[str, str]:
    """The variables that a pod of the chart has, with this machine's addresses in place of services."""
    (pod,) = (pod for key, pod in pods(render("minimal")).items() if key.endswith(name))
    secrets = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
    secrets["PGPASSWORD"] = "a password"
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "MLFLOW_"))}
    for user in ("PIPELINE", "MLFLOW"):
        secrets |= {f"{user}_ACCESS_KEY_ID": f"key-of-{user}", f"{user}_SECRET_ACCESS_KEY": f"secret-of-{user}"}
    named = {one["name"]: one.get("value", secrets.get(one["name"])) for one in containers(pod)[0]["env"]}
    # the S3 server of the tests has no API for users: MinIO's is tried by itself
    return kept | named | {"AWS_ENDPOINT_URL": endpoint, "USERS": "{}"} | more


@pytest.mark.long
def test_the_hook_makes_what_is_missing_and_nothing_else(
    s3: MiniStack, mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    environment = pod_environment("-prepare", s3.endpoint, s3, MLFLOW_TRACKING_URI=mlflow_server, PREPARE_TIMEOUT="60")
    first = run_script("prepare", environment)
    assert first.returncode == 0, first.stdout + first.stderr
    assert re.sub(r"\d+\n", "N\n", first.stdout).splitlines() == [
        "bucket lmmpress made",
        "bucket mlflow made",
        "experiment lmmpress made: N",
    ]
    again = run_script("prepare", environment)
    assert again.returncode == 0
    assert again.stdout == first.stdout.replace("made:", "is there:").replace("made", "is there")

    # the pods of `helm test`, with nothing but what their own environment says
    check = pod_environment("check-store", s3.endpoint, s3)
    done = run_script("check_store", check)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    for key in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, check[key])
    assert not list(connect().list_objects(bucket_name="lmmpress", recursive=True)), "nothing is left"
    check = pod_environment("check-mlflow", s3.endpoint, s3, MLFLOW_TRACKING_URI=mlflow_server)
    done = run_script("check_mlflow", check)
    assert done.returncode == 0, done.stdout + done.stderr
    client = MlflowClient(mlflow_server)
    experiment = client.get_experiment_by_name("lmmpress")
    assert experiment is not None
    assert not client.search_runs([experiment.experiment_id])

    # an experiment that someone deleted is the same one afterwards
    client.delete_experiment(experiment.experiment_id)
    assert run_script("prepare", environment).returncode == 0
    restored = client.get_experiment_by_name("lmmpress")
    assert restored is not None
    assert (restored.experiment_id, restored.lifecycle_stage) == (experiment.experiment_id, "active")


@pytest.mark.long
def test_mlflow_answers_by_the_names_of_its_service_and_no_other(mlflow_server: str) -> None:
    import urllib3

    def asked(host: str) -> int:
        address = f"{mlflow_server}/api/2.0/mlflow/experiments/search?max_results=1"
        return int(urllib3.request("GET", address, headers={"Host": host}).status)

    service = "press-lmmpress-mlflow"
    for host in (service, f"{service}.team", f"{service}.team.svc", f"{service}.team.svc.cluster.local"):
        assert asked(f"{host}:5000") == 200, host
    assert asked("localhost:5000") == 200, "by a port-forward"
    assert asked("mlflow.example.org") == 403


@pytest.mark.long
def test_mlflows_database_comes_back_from_its_dump(tmp_path: Path) -> None:
    """By the commands of docs/install.md, into a database that a new installation has made."""
    from mlflow import MlflowClient

    bin = programs()
    if bin is None:
        unavailable("PostgreSQL's server is not installed: apt-get install postgresql")
    text = (ROOT / "docs" / "install.md").read_text("utf-8").replace("\\\n", "")
    told = r"kubectl exec .*postgresql-0 -- +(sh -c 'PGPASSWORD=\S+ (pg_dump|pg_restore) .*)"
    commands = dict(re.findall(told, text))
    dump, restore = sorted(commands, key=commands.__getitem__)
    experiment = {}
    for command in (dump, restore):
        password = f"of the server for {commands[command]}"
        with postgresql(bin, "mlflow", password, "mlflow") as port:
            address = f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/mlflow"
            environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": address, "PGPASSWORD": password}
            assert run_script("migrate", environment).returncode == 0
            client = MlflowClient(address.replace("mlflow@", f"mlflow:{password.replace(' ', '%20')}@"))
            if command == dump:
                client.create_experiment("lmmpress")
            there = {"POSTGRES_PASSWORD": password, "PGHOST": "127.0.0.1", "PGPORT": str(port)}
            path = os.environ | there | {"PATH": f"{bin}:{os.environ['PATH']}"}
            subprocess.run(["sh", "-c", command], cwd=tmp_path, env=path, check=True)
            found = client.get_experiment_by_name("lmmpress")
            assert found is not None
            experiment[command] = (found.experiment_id, found.creation_time)
    assert experiment[dump] == experiment[restore]


def test_the_hook_waits_and_then_says_why(s3: MiniStack) -> None:
    proxy = Proxy(s3.endpoint)
    busy, refuse = answer("503 Service Unavailable", "SlowDown"), answer("403 Forbidden", "AccessDenied")
    proxy.answers = [busy] * 2
    name = f"late-{int(time.time())}"
    environment = pod_environment("-prepare", proxy.endpoint, s3, BUCKETS=name, EXPERIMENT="", PREPARE_TIMEOUT="30")
    done = run_script("prepare", environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"bucket {name} made"
    assert "trying again" in done.stdout
    # what passes is waited for as long as was said; what does not is told at once
    for fault, seconds, told in ((busy, "0.2", "the server answers"), (refuse, "600", "access is denied")):
        proxy.answers = [fault] * 50
        done = run_script("prepare", environment | {"PREPARE_TIMEOUT": seconds, "BUCKETS": "other"})
        assert done.returncode == 1
        assert done.stderr.startswith(f"bucket other: {told}"), done.stderr
        assert s3.secret_key not in done.stdout + done.stderr
    proxy.close()


@pytest.fixture
def minio() -> Iterator[MinioUsers]:
    server = MinioUsers()
    yield server
    server.close()


def users_environment(minio: MinioUsers, **more: str) -> dict[str, str]:
    """Of the hook's pod, with MinIO's API for users alone."""
    (pod,) = (pod for key, pod in pods(render("minimal")).items() if key.endswith("-prepare"))
    (users,) = (one["value"] for one in containers(pod)[0]["env"] if one["name"] == "USERS")
    server = MiniStack(Path(), 0)
    server.access_key, server.secret_key = minio.access_key, minio.secret_key
    more = {"BUCKETS": "", "EXPERIMENT": "", "PREPARE_TIMEOUT": "5", "USERS": users} | more
    return pod_environment("-prepare", minio.endpoint, server, **more)


def test_the_hook_makes_users_with_rights_on_their_prefix(minio: MinioUsers) -> None:
    done = run_script("prepare", users_environment(minio))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == [
        "keys of mlflow: may write to mlflow/artifacts",
        "keys of pipeline: may write to lmmpress/store and read lmmpress/models, lmmpress/data, lmmpress/sample",
    ]
    assert minio.users == {
        "key-of-PIPELINE": ("secret-of-PIPELINE", "lmmpress-pipeline"),
        "key-of-MLFLOW": ("secret-of-MLFLOW", "lmmpress-mlflow"),
    }
    rights = policy([Place("lmmpress", "store")], [Place("lmmpress", name) for name in ("models", "data", "sample")])
    deny = {"Effect": "Deny", "Action": ["admin:*"]}
    assert minio.policies["lmmpress-pipeline"] == rights | {"Statement": [*rights["Statement"], deny]}
    was = copy.deepcopy((minio.users, minio.policies))
    again = run_script("prepare", users_environment(minio))
    assert (again.stdout, minio.users, minio.policies) == (done.stdout, *was), "run again, it changes nothing"


def test_keys_that_are_changed_end_the_old_ones_and_no_other_users(minio: MinioUsers) -> None:
    minio.users["somebody"] = ("else", "readonly")
    assert run_script("prepare", users_environment(minio)).returncode == 0
    changed = {"PIPELINE_ACCESS_KEY_ID": "new-key", "PIPELINE_SECRET_ACCESS_KEY": "new-secret"}
    assert run_script("prepare", users_environment(minio, **changed)).returncode == 0
    assert minio.users == {
        "somebody": ("else", "readonly"),
        "new-key": ("new-secret", "lmmpress-pipeline"),
        "key-of-MLFLOW": ("secret-of-MLFLOW", "lmmpress-mlflow"),
    }


def test_one_pair_of_keys_for_both_has_the_rights_of_both(minio: MinioUsers) -> None:
    one_for_both = {"PIPELINE_ACCESS_KEY_ID": "both", "MLFLOW_ACCESS_KEY_ID": "both"}
    for _ in range(2):
        assert run_script("prepare", users_environment(minio, **one_for_both)).returncode == 0
        assert {key: told[1] for key, told in minio.users.items()} == {"both": "lmmpress-mlflow,lmmpress-pipeline"}


def test_root_keys_for_pipelines_are_warned_of(minio: MinioUsers) -> None:
    same = {"PIPELINE_ACCESS_KEY_ID": minio.access_key, "PIPELINE_SECRET_ACCESS_KEY": minio.secret_key}
    done = run_script("prepare", users_environment(minio, **same))
    assert done.returncode == 0
    assert "keys of pipeline: WARNING: they are MinIO's root keys" in done.stdout
    assert minio.users.keys() == {"key-of-MLFLOW"}


def test_a_server_without_users_is_told_and_one_that_starts_is_waited_for(minio: MinioUsers) -> None:
    minio.answers = [503, 503]
    done = run_script("prepare", users_environment(minio))
    assert done.returncode == 0
    assert "the server answers 503; trying again" in done.stdout
    minio.answers = [403]
    done = run_script("prepare", users_environment(minio))
    assert (done.returncode, done.stderr) == (1, "keys of mlflow: the server answers 403\n")


def test_a_store_that_does_not_do_is_found_out(s3: MiniStack) -> None:
    for endpoint, told in (
        (s3.endpoint, "there is no such bucket"),
        ("http://127.0.0.1:9", "no answer from the server"),
    ):
        environment = pod_environment("check-store", endpoint, s3, STORE="s3://no-such-bucket/a")
        done = run_script("check_store", environment)
        assert done.returncode == 1
        assert done.stderr.startswith("store s3://no-such-bucket/a: "), done.stderr
        assert told in done.stderr


def test_a_server_that_ignores_conditions_is_found_out(s3: MiniStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes every write: what stands before it takes the condition out of the request."""

    class Forgetful(Proxy):
        def _serve(self, client: Any) -> None:
            super()._serve(_Without(client))

    class _Without:
        def __init__(self, client: Any) -> None:
            self._client = client

        def __getattr__(self, name: str) -> Any:
            return getattr(self._client, name)

        def __enter__(self) -> Any:
            self._client.__enter__()
            return self

        def __exit__(self, *what: Any) -> None:
            self._client.__exit__(*what)

        def fileno(self) -> int:
            return int(self._client.fileno())

        def recv(self, size: int) -> bytes:
            # a header of the same length that says nothing
            return bytes(self._client.recv(size)).replace(b"If-None-Match:", b"X-None-Match:-")

    environment = pod_environment("-prepare", s3.endpoint, s3, EXPERIMENT="", BUCKETS="lmmpress")
    assert run_script("prepare", environment).returncode == 0
    proxy = Forgetful(s3.endpoint)
    done = run_script("check_store", pod_environment("check-store", proxy.endpoint, s3))
    proxy.close()
    assert done.returncode == 1
    assert "the server overwrites what If-None-Match forbids" in done.stderr
