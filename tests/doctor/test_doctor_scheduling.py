"""Which node takes a pod and what is free on it, as Kubernetes decides it."""

from decimal import Decimal
from typing import Any

import pytest
from support.findings import Json
from support.kubernetes_api import node, pod

from lmmpress.doctor.nodes import matches, tolerates, used_by_node
from lmmpress.doctor.nodes import refusal as refused_by
from lmmpress.doctor.pod_demands import demands_of
from lmmpress.pods.cluster_reader import amount
from lmmpress.tasks.cluster_profile import Expression, Profile, Toleration


@pytest.mark.parametrize(
    ("toleration", "covers"),
    [
        ({"operator": "Exists"}, True),
        ({"operator": "Equal"}, False),
        ({"key": "k", "operator": "Exists"}, True),
        ({"key": "k", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "k", "value": "v"}, True),
        ({"key": "k", "value": "w"}, False),
        ({"key": "k"}, False),
        ({"key": "l", "operator": "Exists"}, False),
    ],
)
def test_tolerations_cover_taints_as_in_kubernetes(toleration: Json, covers: bool) -> None:
    assert tolerates(Toleration(**toleration), "k", "v", "NoSchedule") is covers


@pytest.mark.parametrize(
    ("operator", "values", "labels", "match"),
    [
        ("In", ["a", "b"], {"k": "a"}, True),
        ("In", ["a"], {}, False),
        ("NotIn", ["a"], {"k": "a"}, False),
        ("NotIn", ["a"], {}, True),
        ("Exists", [], {"k": ""}, True),
        ("DoesNotExist", [], {"k": ""}, False),
        ("DoesNotExist", [], {}, True),
        ("Gt", ["40"], {"k": "80"}, True),
        ("Gt", ["80"], {"k": "80"}, False),
        ("Lt", ["80"], {"k": "40"}, True),
        ("Lt", ["80"], {"k": "many"}, False),
        ("Lt", [], {"k": "1"}, False),
    ],
)
def test_expressions_match_labels_as_in_kubernetes(operator: Any, values: list[str], labels: Json, match: bool) -> None:
    assert matches(Expression(key="k", operator=operator, values=values), labels) is match


def test_one_required_affinity_is_enough_and_preferred_ones_do_not_count() -> None:
    terms = [
        {"expressions": [{"key": "gpu.kind", "operator": "In", "values": ["B200"]}]},
        {"expressions": [{"key": "gpu.kind", "operator": "In", "values": ["H100"]}]},
        {"expressions": [{"key": "gpu.kind", "operator": "In", "values": ["T4"]}], "weight": 5},
    ]
    tolerations = [{"operator": "Exists"}]
    for chosen, fits in ((terms, True), (terms[:1], False), (terms[2:], True)):
        profile = Profile.model_validate({"defaults": {"affinity": chosen, "tolerations": tolerations}})
        assert (refused_by(node("n"), demands_of(profile, ("distill",))[0]) is None) is fits


def test_the_requests_of_a_pod_include_its_init_containers_and_sidecars() -> None:
    def asks(cpu: str, **more: Any) -> Json:
        return {"resources": {"requests": {"cpu": cpu}}} | more

    spec = {
        "nodeName": "n",
        "containers": [asks("1"), asks("500m"), {"resources": {"limits": {"memory": "1Gi"}}}],
        "initContainers": [asks("4"), asks("250m", restartPolicy="Always")],
        "overhead": {"cpu": "100m"},
    }
    used = used_by_node([{"spec": spec, "status": {"phase": "Pending"}}, pod("done", "n", "Succeeded", cpu="9")])
    assert used == {"n": {"pods": 1, "cpu": Decimal("4.1"), "memory": 1 << 30}}


ODD: list[Any] = ["", "NaN", None, "1e999999999", "Infinity", "-", True, {}, "9" * 5000, "i"]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        *[("500m", Decimal("0.5")), ("16Gi", 16 << 30), ("1e3", 1000), (4, 4)],
        *[(odd, None) for odd in ODD],
    ],
)
def test_quantities_are_parsed_or_none(written: Any, value: Any) -> None:
    assert amount(written) == value
