"""Random answers that Kubernetes never gives: each ends in findings, never in a traceback."""

import copy
import json
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.findings import findings
from support.kubeflow import Kubeflow
from support.kubernetes_api import HOME, REVIEWS, Kubernetes, Raw, claim, healthy, listed, named
from support.mlflow_stub import Mlflow
from support.plans import PROFILE
from typer.testing import Result

from lmmpress.doctor.checks import checks, examine
from lmmpress.doctor.finding import Finding
from lmmpress.pods.cluster_reader import connect
from lmmpress.tasks.cluster_profile import Profile

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["1Gi", "-1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
BODIES = (
    st.binary(max_size=40)
    | st.sampled_from([b"", b"<html>log in</html>", b"null", b"[]", b"{", b'"\\ud800"', b"[" * 9999, b"9" * 9999])
    | JSON.map(lambda value: json.dumps(value).encode())
)
RAWS = st.builds(Raw, st.sampled_from([200, 200, 200, 201, 204, 301, 400, 401, 403, 404, 409, 429, 500, 503]), BODIES,
                 st.sampled_from(["application/json", "text/html"]), st.sampled_from([0, 0, 0, 50]))  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] + [below for key, inner in items for below in _places(inner, (*path, key))]


@st.composite
def odd_answers(draw: st.DrawFn) -> dict[str, Any]:
    """The answers of a healthy cluster; some are replaced, and some hold odd values."""
    answers: dict[str, Any] = copy.deepcopy(healthy())
    _with_more_to_read(answers)
    paths = [
        *answers,
        f"{REVIEWS}/selfsubjectaccessreviews",
        f"{REVIEWS}/namespaces/team-ads/localsubjectaccessreviews",
    ]
    for path in draw(st.lists(st.sampled_from(paths), max_size=4)):
        answers[path] = draw(RAWS)
    for path in draw(st.lists(st.sampled_from(sorted(answers)), min_size=1, max_size=6)):
        if isinstance(answers[path], Raw):
            continue
        *before, last = draw(st.sampled_from(_places(answers[path])[1:]))
        place = answers[path]
        for key in before:
            place = place[key]
        place[last] = draw(JSON)
    return answers


def _with_more_to_read(answers: dict[str, Any]) -> None:
    answers[HOME]["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": "restricted"}
    quota = {"hard": {"requests.cpu": "9", "limits.memory": "1Ti", "pods": "5"}, "used": {"requests.cpu": "1"}}
    answers[f"{HOME}/resourcequotas"] = listed(named("q", spec={}, status=quota))
    limits = [{"type": "Container", "max": {"cpu": "99"}, "min": {"memory": "1"}, "default": {"cpu": "9"},
               "maxLimitRequestRatio": {"memory": "3"}, "defaultRequest": {"cpu": "1"}}]  # fmt: skip
    answers[f"{HOME}/limitranges"] = listed(named("l", spec={"limits": limits}))
    answers[f"{HOME}/persistentvolumeclaims/ads"] = claim("nfs", "Pending")
    answers[f"{HOME}/persistentvolumeclaims/lmmpress-cache"] = claim("", "Pending")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(answers=odd_answers(), nodes=st.sampled_from([1, 2, 1000]))
def test_no_answer_of_the_api_ends_in_a_traceback(
    answers: dict[str, Any], nodes: int, cluster: Kubernetes, others: tuple[Kubeflow, Mlflow]
) -> None:
    cluster.answers = answers
    where = {"host": others[0].host, "namespace": "team-ads"}
    distils = {"distill": {"gpus": 4, "nodes": nodes}}
    profile = Profile.model_validate(PROFILE | {"kubeflow": where, "components": distils})
    found = examine(profile, connect(), checks())
    _sound(found)
    assert not [one for one in found if "not understood" in one.said], found  # each check handles odd answers itself
    json.dumps([vars(one) for one in found]).encode()


def _sound(found: list[Finding]) -> None:
    assert found[0].check == "API"
    for one in found:
        assert one.status in ("ok", "warning", "failed", "unknown")
        assert one.said
        assert one.mend or one.status in ("ok", "unknown")
        assert "\n" not in one.said + one.mend
        f"{one.check} {one.said} {one.mend}".encode()


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(raw=RAWS)
def test_a_server_that_is_not_the_api_is_reported(raw: Raw, doctor: Callable[..., Result], cluster: Kubernetes) -> None:
    cluster.everything = raw
    found = doctor("--json")
    cluster.everything = None
    _sound([Finding(**one) for one in findings(found)])
    assert "ok" not in {
        one["status"] for one in findings(found) if not one["check"].startswith(("MLflow", "Kubeflow's"))
    }
