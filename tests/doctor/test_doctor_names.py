"""Names in the pods of pipelines: does a resolver answer, and which value of the chart lets pods ask it?"""

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.chart import render_text
from support.findings import Json, only
from support.kubernetes_api import HOME, Kubernetes, Raw, listed, named, refusal
from support.plans import PROFILE

from lmmpress.doctor.external_services import MARK, Addresses
from lmmpress.doctor.in_cluster import check_from_inside
from lmmpress.doctor.names import check_names, resolvers_of
from lmmpress.doctor.resolvers import mend_of
from lmmpress.pods.cluster_reader import connect
from lmmpress.tasks.cluster_profile import Profile

RESOLV = "search team.svc.example.test svc.example.test example.test\nnameserver 10.96.0.10\nnameserver 10.96.0.11\n"


@pytest.fixture
def resolv(tmp_path: Path) -> Path:
    path = tmp_path / "resolv.conf"
    path.write_text(RESOLV, "utf-8")
    return path


def refuse(why: int) -> Callable[..., Any]:
    def asked(name: str, *_: Any) -> Any:
        assert name == "kubernetes.default.svc.example.test."
        raise socket.gaierror(why, "said so")

    return asked


@pytest.mark.parametrize(("why", "status"), [(socket.EAI_NONAME, "ok"), (socket.EAI_AGAIN, "failed")])
def test_an_answer_is_enough_even_that_there_is_no_such_name(
    why: int, status: str, resolv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.getaddrinfo", refuse(why))
    found = check_names(resolv)
    assert (found.check, found.status) == ("names", status)
    assert "10.96.0.10 and 10.96.0.11" in found.said
    assert resolvers_of(found) == (["10.96.0.10", "10.96.0.11"] if status == "failed" else [])
    assert ("networkPolicy.dns" in found.mend) == (status == "failed")


def test_a_resolver_that_never_answers_is_given_up(resolv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr("lmmpress.doctor.names._SECONDS", 0.1)
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: over.wait(30))
    found = check_names(resolv)
    over.set()
    assert found.status == "failed"
    assert "none within" in found.said


def test_a_pod_without_a_resolver_is_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "socket.getaddrinfo", lambda *_: refuse(socket.EAI_AGAIN)("kubernetes.default.svc.example.test.")
    )
    found = check_names(tmp_path / "none")
    assert (found.status, resolvers_of(found)) == ("failed", [])


def service(namespace: str, name: str, address: str, target: Any, **selector: str) -> Json:
    port = {"port": 53, "protocol": "UDP"} | ({} if target is None else {"targetPort": target})
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": address, "clusterIPs": [address], "selector": selector, "ports": [port]},
    }


USUAL = service("kube-system", "kube-dns", "10.96.0.10", 53, **{"k8s-app": "kube-dns"})
OPENSHIFT = service("openshift-dns", "dns-default", "172.30.0.10", "dns", **{"dns.operator": "default"})


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("10.96.0.10", ("kubernetes.io/metadata.name: kube-system", "k8s-app: kube-dns", "cidr: 10.96.0.10/32")),
        ("172.30.0.10", ("openshift-dns", "dns.operator: default", "networkPolicy.dnsPorts: [53, 5353]")),
        ("169.254.20.10", ("networkPolicy.dns: [{ipBlock: {cidr: 169.254.20.10/32}}]",)),
        ("fd00::a", ("cidr: fd00::a/128",)),
        ("nowhere", ("the resolver that /etc/resolv.conf names",)),
    ],
)
def test_the_value_names_the_resolvers_pods_or_its_address(
    address: str, words: tuple[str, ...], cluster: Kubernetes
) -> None:
    cluster.answers["/api/v1/services"] = listed(USUAL, OPENSHIFT)
    mend = mend_of([address], connect())
    assert all(word in mend for word in words), mend
    # who may not list every Service, sees the usual ones
    cluster.answers["/api/v1/services"] = refusal(403, "services is forbidden")
    for one in (USUAL, OPENSHIFT):
        place = one["metadata"]
        cluster.answers[f"/api/v1/namespaces/{place['namespace']}/services/{place['name']}"] = one
    assert mend_of([address], connect()) == mend


def test_the_value_is_one_that_the_chart_takes(cluster: Kubernetes) -> None:
    import yaml

    cluster.answers["/api/v1/services"] = listed(OPENSHIFT)
    mend = mend_of(["172.30.0.10"], connect())
    told = {key.removeprefix("networkPolicy."): value for key, value in yaml.safe_load("{" + mend + "}").items()}
    assert told.keys() == {"dns", "dnsPorts"}
    assert "172.30.0.10/32" in render_text({"networkPolicy": told})


def test_a_pod_that_resolves_nothing_is_told_which_value_helps(
    cluster: Kubernetes, monkeypatch: pytest.MonkeyPatch, resolv: Path
) -> None:
    with monkeypatch.context() as inside:
        inside.setattr("socket.getaddrinfo", refuse(socket.EAI_AGAIN))
        printed = MARK + json.dumps(vars(check_names(resolv)))
    cluster.answers["/api/v1/services"] = listed(USUAL)
    cluster.answers[f"{HOME}/pods"] = listed(named("doctor-x", status={"phase": "Succeeded"}))
    cluster.answers[f"{HOME}/pods/doctor-x/log"] = Raw(200, printed.encode(), "text/plain")
    profile = Profile.model_validate(PROFILE | {"kubeflow": {"namespace": "team-ads"}})
    found = only(check_from_inside(profile, connect(), Addresses()))
    assert (found.check, found.status) == ("inside: names", "failed")
    assert "k8s-app: kube-dns" in found.mend
