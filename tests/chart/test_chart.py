"""The Helm chart, without a cluster: real Helm, the schemas of Kubernetes, a server that keeps objects, the hook."""

import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.chart import (
    CASES,
    CHART,
    CUSTOM,
    DIGEST,
    VERSIONS,
    Object,
    containers,
    in_all_cases,
    one,
    parsed,
    pods,
    render,
    render_text,
    run_helm,
    runtime,
)
from support.paths import ROOT

CRDS = Path(__file__).parent / "crds"


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
def test_every_object_is_valid_in_kubernetes(case: str, version: str) -> None:
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
    clustered = {found["kind"] for found in objects if found["metadata"].get("namespace") != "team"}
    assert clustered <= {"ClusterTrainingRuntime"}
    assert all(len(found["metadata"]["name"]) <= 63 for found in objects)


@pytest.mark.parametrize("version", [version for version in VERSIONS if version >= "1.31"])
def test_the_job_of_a_training_is_valid_in_kubernetes(version: str) -> None:
    """In the versions that Kubeflow Trainer runs on."""
    import kubernetes_validate

    job = {"apiVersion": "batch/v1", "kind": "Job"} | runtime(render("trainer", version))
    kubernetes_validate.validate(job, version.rsplit(".", 1)[0], strict=True)


def test_the_check_of_custom_resources_finds_unknown_keys() -> None:
    for kind, case in CUSTOM.items():
        (found,) = (found for found in render(case) if found["kind"] == kind)
        assert not list(custom_schema(kind).iter_errors(found))
        assert list(custom_schema(kind).iter_errors(found | {"spec": found["spec"] | {"unknown": 1}}))


@in_all_cases
def test_every_object_that_another_refers_to_exists(case: str) -> None:
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
            for source in volume.get("projected", {}).get("sources", []):
                if "secret" in source:
                    wanted.append(("Secret", source["secret"]["name"]))
                if "configMap" in source and source["configMap"]["name"] != "kube-root-ca.crt":
                    wanted.append(("ConfigMap", source["configMap"]["name"]))
                    data = one(objects, "ConfigMap", source["configMap"]["name"])["data"]
                    assert {item["key"] for item in source["configMap"]["items"]} == data.keys()
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
    return bool(labels.items() <= pod["metadata"]["labels"].items())


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
    assert listed == {container["image"] for pod in pods(render("trigger")).values() for container in containers(pod)}
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert f'version = "{chart["appVersion"]}"' in project


def test_without_their_apis_custom_resources_are_left_out() -> None:
    for case in ("everything", "trigger", "trainer"):
        kinds = {found["kind"] for found in parsed(render_text(CASES[case][0]))}
        assert not kinds & CUSTOM.keys()


def test_dashboard_and_rules_can_be_read() -> None:
    objects = render("everything")
    assert len(alerts(objects)) == 6
    assert alerts(render("trigger")) - alerts(objects) == {"LmmpressTriggerDown", "LmmpressTriggerStands"}
    dashboard = json.loads(one(objects, "ConfigMap", "press-lmmpress-dashboard")["data"]["press-lmmpress.json"])
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    (rules,) = (found for found in objects if found["kind"] == "PrometheusRule")
    asked += [rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"]]
    (rules,) = (found for found in render("trigger") if found["kind"] == "PrometheusRule")
    asked += [rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"]]
    for expression in asked:
        assert 'namespace="team"' in expression
        assert "@" not in expression
        assert all(expression.count(a) == expression.count(b) for a, b in ("()", "{}", "[]"))


def alerts(objects: list[Object]) -> set[str]:
    (rules,) = (found for found in objects if found["kind"] == "PrometheusRule")
    names = [rule["alert"] for group in rules["spec"]["groups"] for rule in group["rules"]]
    assert len(names) == len(set(names))
    return set(names)
