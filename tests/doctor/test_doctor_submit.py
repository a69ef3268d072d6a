"""What `lmmpress submit` checks before it submits."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cluster_faults import (
    FAULTS,
    Break,
    no_account,
    no_runtime,
    no_trainer,
    nodes_full,
    nodes_unseen,
    old_trainer,
    on_nodes,
    quotas_unseen,
    too_few_gpus_on_a_node,
    too_few_nodes,
)
from support.findings import Json, findings
from support.kubeflow import Kubeflow
from support.kubernetes_api import HOME, Kubernetes
from support.mlflow_stub import Mlflow
from support.plans import PLAN
from typer.testing import CliRunner, Result

from lmmpress.cli.app import app
from lmmpress.doctor.checks import BEFORE_SUBMITTING, checks
from lmmpress.errors import UserError
from lmmpress.kubeflow.submit import Submitted

Submit = Callable[..., Result]


@pytest.fixture
def submit(cluster: Kubernetes, profile: Json, tmp_path: Path) -> Submit:
    def run(*options: str) -> Result:
        (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN), "utf-8")
        (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(profile), "utf-8")
        command = ["submit", str(tmp_path / "plan.yaml"), "--cluster", str(tmp_path / "cluster.yaml")]
        before = socket.getdefaulttimeout()
        try:
            return CliRunner().invoke(app, [*command, "--granularity", "stage", *options])
        finally:
            socket.setdefaulttimeout(before)

    return run


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The granularities of what would be submitted. Nothing is compiled, which would take seconds."""
    found: list[str] = []

    def note(plan: Any, name: str, profile: Any, granularity: str) -> tuple[None, Submitted]:
        found.append(granularity)
        return None, Submitted("r-1", "https://kubeflow.example.com/#/runs/details/r-1")

    monkeypatch.setattr("lmmpress.kubeflow.submit.submit", note)
    return found


def test_submit_checks_first_and_then_submits(submit: Submit, others: tuple[Kubeflow, Mlflow]) -> None:
    others[0].submitted.clear()
    found = submit()
    assert found.exit_code == 0, found
    assert "warning" not in found.stderr
    assert len(others[0].submitted) == 1


def test_submit_refuses_with_the_doctors_findings(
    submit: Submit, doctor: Callable[..., Result], cluster: Kubernetes, submitted: list[str]
) -> None:
    del cluster.answers[f"{HOME}/secrets/lmmpress-store"]
    no_account(cluster, {})
    first, second = [one for one in findings(doctor("--json")) if one["status"] == "failed"]
    found = submit()
    assert isinstance(found.exception, UserError)
    assert not submitted
    assert f"{first['check']}: {first['said']}; {first['mend']}" in str(found.exception)
    assert "(and 1 more, above); --no-checks submits all the same" in str(found.exception)
    assert f"{second['check']}: {second['said']}; {second['mend']}" in found.stderr
    assert submit("--no-checks").exit_code == 0
    assert submitted == ["stage"]


@pytest.mark.parametrize("broken", [no_trainer, old_trainer, no_runtime, too_few_nodes])
def test_submit_refuses_where_several_nodes_cannot_distil(
    broken: Break, submit: Submit, cluster: Kubernetes, profile: Json, submitted: list[str]
) -> None:
    on_nodes(profile)
    assert "warning" not in submit().stderr
    broken(cluster, profile)
    found = submit()
    assert isinstance(found.exception, UserError)
    assert FAULTS[broken.__name__].said in str(found.exception)
    assert submitted == ["stage"]


def test_submit_warns_of_what_it_could_not_check_and_goes_on(
    submit: Submit, cluster: Kubernetes, submitted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes_unseen(cluster, {})
    nodes_full(cluster, {})
    quotas_unseen(cluster, {})
    assert "warning: could not be looked at: quotas, nodes; `lmmpress doctor` says why" in submit().stderr
    cluster.token = "another"
    assert "warning: the cluster could not be looked at" in submit().stderr
    monkeypatch.setenv("KUBECONFIG", "")
    cluster.asked.clear()
    assert submit().stderr.count("the cluster could not be looked at: there is no kubeconfig") == 1
    assert not cluster.asked
    assert submitted == ["stage"] * 3
    assert isinstance(submit("--context", "prod").exception, UserError)


def test_submit_checks_the_pods_that_it_starts(submit: Submit, cluster: Kubernetes, submitted: list[str]) -> None:
    too_few_gpus_on_a_node(cluster, {})
    few = ("--granularity", "step", "--set", "stages={block: {step: 16, max: 16}}")
    assert "nodes for distill" in str(submit(*few).exception)
    assert submit().exit_code == 0
    assert submitted == ["stage"]


def test_every_check_of_submit_is_one_of_the_doctors() -> None:
    assert set(BEFORE_SUBMITTING) <= checks().keys()
