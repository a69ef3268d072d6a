"""A run is followed by its pods and Kubeflow's API: what is told where nothing moves, and why a run has failed."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.argo_pods import PODS, WORKFLOWS, done, runs, waits, workflow
from support.kubeflow import Kubeflow
from support.kubernetes_api import Kubernetes, Raw, listed
from support.plans import PLAN

from lmmpress.errors import UserError
from lmmpress.kubeflow.follow import explain, follow
from lmmpress.kubeflow.submit import Submitted, connect
from lmmpress.plan import parse_plan
from lmmpress.pods.cluster_reader import connect as connect_kubernetes
from lmmpress.tasks.cluster_profile import Profile

RUN = Submitted("r-1", "https://kf/#/runs/details/r-1", frozenset(["prepare", "block"]))
Follow = Callable[[], tuple[str, list[str]]]


@pytest.fixture
def kubeflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Kubeflow]:
    monkeypatch.setenv("HOME", str(tmp_path))  # the client notes its namespace there
    monkeypatch.setattr("lmmpress.kubeflow.follow.PAUSE", 0.01)
    monkeypatch.setattr("lmmpress.kubeflow.follow.QUIET", 0.02)
    before = socket.getdefaulttimeout()
    server = Kubeflow(["RUNNING"])
    yield server
    server.stop()
    socket.setdefaulttimeout(before)


def profile_of(kubeflow: Kubeflow) -> Profile:
    return Profile.model_validate({"kubeflow": {"host": kubeflow.host, "namespace": "team-ads"}})


@pytest.fixture
def followed(kubeflow: Kubeflow, kubernetes: Kubernetes) -> Follow:
    def run() -> tuple[str, list[str]]:
        lines: list[str] = []
        profile = profile_of(kubeflow)
        plan = parse_plan(PLAN | {"store": None})
        state = follow(connect(profile.kubeflow), profile, plan, RUN, lines.append, connect_kubernetes())
        return state, lines

    return run


def test_parts_are_told_by_their_pods_and_not_by_kubeflows_nodes(
    kubernetes: Kubernetes, kubeflow: Kubeflow, followed: Follow
) -> None:
    runs(kubernetes, done("a", "prepare", "", 0, 1), done("b", "stage", "block", 1, 12))
    kubeflow.states = ["RUNNING", "SUCCEEDED"]
    assert followed() == ("SUCCEEDED", ["prepare: done (1:00)", "stage block: done (11:00)"])


def test_where_pods_are_not_shown_kubeflows_tasks_are_told(
    kubernetes: Kubernetes, kubeflow: Kubeflow, followed: Follow
) -> None:
    kubeflow.states = ["RUNNING", "SUCCEEDED"]
    assert followed() == ("SUCCEEDED", ["prepare: succeeded"])


def test_where_nothing_moves_the_reason_is_told_once(
    kubernetes: Kubernetes, kubeflow: Kubeflow, followed: Follow
) -> None:
    runs(kubernetes, waits("p", "ErrImagePull", "not found", part="stage"))
    kubeflow.states = ["RUNNING"] * 30 + ["SUCCEEDED"]
    kubeflow.tasks = []
    state, (line,) = followed()
    assert state == "SUCCEEDED"
    assert line.startswith(
        "image reg/it:1 cannot be pulled: pod p (stage of block): not found; see image and pull_secrets"
    )


def test_a_run_that_nobody_reports_to_kubeflow_ends_by_its_workflow(
    kubernetes: Kubernetes, kubeflow: Kubeflow, followed: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmmpress.kubeflow.follow._UNREPORTED", 0.05)
    runs(kubernetes, of=workflow("Failed"))
    kubeflow.states, kubeflow.tasks = ["PENDING"], []
    state, (line,) = followed()
    assert state == "FAILED"
    assert "persistence agent does not report: kubectl logs deployment/ml-pipeline-persistenceagent -n kubeflow" in line


def test_a_workflow_that_is_deleted_while_it_is_followed_is_told(
    kubernetes: Kubernetes, kubeflow: Kubeflow, followed: Follow
) -> None:
    kubernetes.answers |= {PODS: listed(), WORKFLOWS: listed()}
    kubeflow.states = ["RUNNING"] * 30 + ["FAILED"]
    kubeflow.tasks = []
    state, (line,) = followed()
    assert state == "FAILED"
    assert line.startswith("there is no workflow of this run in namespace team-ads; it was deleted, or the kubeconfig")


def test_a_run_that_is_deleted_in_kubeflow_is_one_line(kubeflow: Kubeflow, followed: Follow) -> None:
    kubeflow.deleted = True
    with pytest.raises(UserError, match="run r-1 was deleted in Kubeflow; nothing is lost"):
        followed()


def test_a_failed_run_is_explained_by_its_pod_its_lines_and_the_command_that_carries_on(
    kubernetes: Kubernetes, kubeflow: Kubeflow
) -> None:
    runs(kubernetes, done("p", "distill", "block", exitCode=1, reason="Error"))
    log = b"error: no space left\nF1129 09:00:00.0 1 main.go] failed to execute component: exit status 2\n"
    kubernetes.answers[f"{PODS}/p/log"] = Raw(200, log, "text/plain")
    lines: list[str] = []
    explain(profile_of(kubeflow), RUN, connect_kubernetes(), "lmmpress submit plan.yaml --wait", lines.append)
    assert lines == [
        "distill of block failed in pod p: exit code 2, a fault of the input or of the environment",
        "  error: no space left",
        "what was computed is kept; carry the run on: lmmpress submit plan.yaml --wait",
    ]
    lines.clear()
    explain(profile_of(kubeflow), RUN, None, "lmmpress submit plan.yaml --wait", lines.append)
    assert lines[0] == "Kubernetes gives no reason here; the logs of its tasks are at https://kf/#/runs/details/r-1"
