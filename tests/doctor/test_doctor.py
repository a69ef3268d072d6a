"""The doctor against recorded answers of healthy and broken clusters, over real HTTP: one fault at a time."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from support.cluster_faults import FAULTS, Break, claim_of_one_node, nodes_unseen, on_nodes, set_quota
from support.findings import Json, findings
from support.kubernetes_api import (
    Kubernetes,
    listed,
    pod,
)
from typer.testing import CliRunner, Result

from lmmpress.cli.app import app
from lmmpress.errors import UserError
from lmmpress.printing.one_line import printable


def test_a_healthy_cluster_has_no_findings(doctor: Callable[..., Result]) -> None:
    found = doctor("--json", "--strict")
    assert [one for one in findings(found) if one["status"] != "ok"] == []
    assert found.exit_code == 0
    checked = {one["check"] for one in findings(found)}
    assert {"API", "namespace", "permission to submit", "permissions of the pods", "CRDs of Argo", "quotas"} <= checked
    assert {
        "workflow-controller",
        "service account",
        "secret lmmpress-store (store)",
        "pull secret registry",
    } <= checked
    assert {"claim ads", "queue gpu-team-ads", "nodes for distill", "Kubeflow's API"} <= checked
    table = doctor()
    assert table.exit_code == 0
    assert "v1.34.2" in table.stdout
    assert table.stdout.strip().endswith(" ok")


def test_where_several_nodes_distil_their_cluster_is_looked_at_too(
    doctor: Callable[..., Result], cluster: Kubernetes, profile: Json
) -> None:
    once = {one["check"] for one in findings(doctor("--json"))}
    assert not [path for _, path in cluster.asked if "trainer" in path or "jobset" in path], "not without need"
    on_nodes(profile)
    found = doctor("--json", "--strict")
    assert [one for one in findings(found) if one["status"] != "ok"] == []
    more = {one["check"] for one in findings(found)} - once
    assert more >= {"CRDs of JobSet", "CRDs of Kubeflow Trainer", "Kubeflow Trainer", "runtime lmmpress"}
    assert more >= {"shared memory", "nodes for distill on 2 nodes"}


def test_what_follows_a_training_counts_beside_it(
    doctor: Callable[..., Result], cluster: Kubernetes, profile: Json
) -> None:
    """By step a pod without GPUs follows it, by stage the pod of the stage, which has one."""
    on_nodes(profile)
    for granularity, gpus in (("step", 8), ("stage", 9)):
        set_quota(cluster, {"requests.nvidia.com/gpu": "8"})
        found = [one for one in findings(doctor("--json", "--granularity", granularity)) if one["status"] != "ok"]
        assert bool(found) == (gpus > 8)
        for one in found:
            assert one["check"] == "quota team for distill on 2 nodes"
            assert f"its 2 pods and the one that follows them ask for {gpus}, the quota is 8 in all" in one["said"]


def test_the_doctor_reads_only_what_it_needs_and_changes_nothing(
    doctor: Callable[..., Result], cluster: Kubernetes
) -> None:
    assert doctor().exit_code == 0
    posted = [path for method, path in cluster.asked if method != "GET"]
    assert posted
    assert all(path.endswith("accessreviews") for path in posted)
    assert not [path for _, path in cluster.asked if path.endswith("/secrets")]  # by name, never all of them


@pytest.mark.parametrize("broken", FAULTS)
def test_one_fault_is_found_by_its_own_check_with_the_remedy(
    broken: str, doctor: Callable[..., Result], cluster: Kubernetes, profile: Json
) -> None:
    fault = FAULTS[broken]
    fault.broken(cluster, profile)
    found = doctor("--json")
    wrong = [one for one in findings(found) if one["status"] != "ok"]
    assert wrong
    for one in wrong:  # every kind of pod may be hit by it, and nothing else
        assert one["check"].startswith(fault.check), wrong
        assert (one["status"], one["mend"] != "" or fault.status == "unknown") == (fault.status, True)
    assert any(fault.said in one["said"] and fault.mend in one["mend"] for one in wrong), wrong
    assert found.exit_code == (1 if fault.status == "failed" else 0)


@pytest.mark.parametrize("broken", [claim_of_one_node, nodes_unseen])
def test_strict_treats_warnings_and_unknowns_as_failures(
    broken: Break, doctor: Callable[..., Result], cluster: Kubernetes, profile: Json
) -> None:
    broken(cluster, profile)
    assert doctor().exit_code == 0
    assert doctor("--strict").exit_code == 1


def test_when_the_cluster_does_not_answer_one_check_fails_and_the_rest_are_unknown(
    doctor: Callable[..., Result], cluster: Kubernetes
) -> None:
    cluster.token = "another"
    told = findings(found := doctor("--json"))
    assert found.exit_code == 1
    assert told[0]["status"] == "failed"
    assert "does not accept this login: HTTP 401" in told[0]["said"]
    assert "--context" in told[0]["mend"]
    of_the_cluster = [one for one in told[1:] if not one["check"].startswith("MLflow")]
    assert {one["status"] for one in of_the_cluster} == {"unknown"}
    cluster.stop()
    (first, *_) = findings(doctor("--json"))
    assert "no answer" in first["said"]
    assert "kubectl cluster-info" in first["mend"]


def test_an_unusable_kubeconfig_is_a_one_line_error(
    doctor: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "odd"
    monkeypatch.setenv("KUBECONFIG", str(path))
    found = doctor()
    assert isinstance(found.exception, UserError)
    assert "KUBECONFIG names no existing file" in str(found.exception)
    for odd in ("", "[1, 2]", "a: b: c", "apiVersion: v1", "clusters: 3\ncontexts: [x]\ncurrent-context: y", "\0", "x"):
        path.write_text(odd, "utf-8")
        found = doctor()
        assert isinstance(found.exception, UserError), odd
        assert "kubeconfig" in str(found.exception)
        assert "\n" not in str(found.exception)
    monkeypatch.setenv("KUBECONFIG", "")
    assert "there is no kubeconfig" in str(doctor().exception)
    assert "--cluster" in str(CliRunner().invoke(app, ["doctor"]).exception)


def test_the_context_option_selects_another_context(
    doctor: Callable[..., Result], cluster: Kubernetes, tmp_path: Path
) -> None:
    path = tmp_path / "kubeconfig"
    told = yaml.safe_load(path.read_text("utf-8"))
    told["contexts"].append({"name": "prod", "context": {"cluster": "c", "user": "v"}})
    told["users"].append({"name": "v", "user": {"token": "of prod"}})
    path.write_text(yaml.safe_dump(told), "utf-8")
    cluster.token = "of prod"
    assert doctor().exit_code == 1
    assert doctor("--context", "prod").exit_code == 0
    assert "prud" in str(doctor("--context", "prud").exception)


def test_with_a_token_for_kubeflow_the_kubeconfigs_user_need_not_be_allowed(
    doctor: Callable[..., Result], cluster: Kubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.denied = {("create", "runs")}
    (tmp_path / "token").write_text("fresh", "utf-8")
    for variable, value in (("KFP_TOKEN", "fresh"), ("KFP_TOKEN_FILE", str(tmp_path / "token"))):
        with monkeypatch.context() as patched:
            patched.setenv(variable, value)
            (one,) = [one for one in findings(doctor("--json")) if one["status"] != "ok"]
        assert (one["check"], one["status"]) == ("permission to submit", "warning")
        assert one["said"].endswith(f"requests to Kubeflow use {variable} instead")


def test_long_lists_are_read_page_by_page(doctor: Callable[..., Result], cluster: Kubernetes) -> None:
    pages = {None: ("2", [pod("a", "gpu-1", gpu="6")]), "2": ("", [pod("b", "gpu-2", gpu="6")])}

    def page(after: str | None) -> Json:
        following, items = pages[after]
        return listed(*items) | {"metadata": {"continue": following}}

    cluster.answers["/api/v1/pods"] = page
    assert "none has room now" in doctor("--json").stdout
    cluster.answers["/api/v1/pods"] = lambda after: listed() | {"metadata": {"continue": "again"}}
    told = [one for one in findings(doctor("--json")) if one["status"] == "unknown"]
    assert "its pages repeat" in told[0]["said"]


def test_granularity_selects_the_pods_that_are_checked(doctor: Callable[..., Result]) -> None:
    told = [one["check"] for one in findings(doctor("--json", "--granularity", "stage"))]
    assert any(one.startswith("nodes for") and "stage" in one for one in told)
    assert not any("distill" in one for one in told)


def test_text_from_a_server_is_printed_on_one_line_without_control_characters() -> None:
    assert printable("a\nb\x1b[31mc\u202e") == "a b [31mc"
    assert printable("\ud800").encode() == b"?"
    assert len(printable("x" * 10_000)) == 400


def test_a_quota_for_other_pods_is_ignored(doctor: Callable[..., Result], cluster: Kubernetes) -> None:
    set_quota(cluster, {"requests.nvidia.com/gpu": "2", "limits.cpu": "1"}, scopes=["NotTerminating"])
    assert doctor("--strict").exit_code == 0


def test_a_bucket_without_keys_causes_a_warning(
    doctor: Callable[..., Result], profile: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmmpress.doctor.external_services.check_buckets", lambda *_: [])
    del profile["secrets"]["store"]
    (one,) = [one for one in findings(doctor("--json", store="s3://models/store")) if one["status"] != "ok"]
    assert (one["check"], one["status"]) == ("secrets", "warning")
