"""Submitting to Kubeflow over real HTTP: what is sent, how a run is followed, and the errors."""

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from support.kubeflow import Kubeflow
from support.plans import PLAN, PROFILE
from typer.testing import CliRunner, Result

from lmmpress.cli.app import app
from lmmpress.errors import UserError
from lmmpress.host.pod import SUBMITTER

Submit = Callable[..., Result]


@pytest.fixture
def kubeflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Kubeflow]:
    monkeypatch.setenv("HOME", str(tmp_path))  # the client notes its namespace there
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr("lmmpress.kubeflow.follow.PAUSE", 0.01)
    before = socket.getdefaulttimeout()
    server = Kubeflow(["PENDING", "RUNNING", "RUNNING", "SUCCEEDED"])
    yield server
    server.stop()
    socket.setdefaulttimeout(before)


@pytest.fixture
def submit(kubeflow: Kubeflow, tmp_path: Path) -> Submit:
    def run(*options: str, host: str | None = None, **changes: object) -> Result:
        (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN | changes), "utf-8")
        where = {"host": host or kubeflow.host, "ui": "https://kubeflow.example.com/pipeline", "namespace": "team-ads"}
        (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(PROFILE | {"kubeflow": where}), "utf-8")
        command = ["submit", str(tmp_path / "plan.yaml"), "--cluster", str(tmp_path / "cluster.yaml"), *options]
        return CliRunner().invoke(app, command)

    return run


def test_a_plan_is_submitted_with_its_numbers_and_its_link_is_shown(submit: Submit, kubeflow: Kubeflow) -> None:
    found = submit()
    assert found.exit_code == 0, found
    assert found.stdout.strip() == "https://kubeflow.example.com/pipeline/#/runs/details/r-1"
    (sent,) = kubeflow.submitted
    assert sent["service_account"] == "lmmpress"
    parameters = sent["runtime_config"]["parameters"]
    assert (parameters["alpha"], parameters["block_step"], parameters["store"]) == (0.15, 4, "s3://models/store")
    tasks = sent["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"]
    assert {"prepare", "block", "publish"} <= tasks.keys()
    executors = sent["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"]
    assert SUBMITTER in {one["name"] for one in executors["exec-prepare"]["container"]["env"]}
    assert "platforms" in sent["pipeline_spec"]["platform_spec"]


def test_the_sample_is_submitted_once_it_lies_where_pods_reach_it(
    submit: Submit, kubeflow: Kubeflow, tmp_path: Path
) -> None:
    submit()  # which writes the profile
    addresses = {key: f"s3://lmmpress/{key}" for key in ("model", "data", "store")}
    command = ["submit", "--sample", "--cluster", str(tmp_path / "cluster.yaml"), "--no-checks"]
    refused = CliRunner().invoke(app, command)
    assert isinstance(refused.exception, UserError)
    assert "which pods cannot reach" in str(refused.exception)
    found = CliRunner().invoke(
        app, command + [word for key, at in addresses.items() for word in ("--set", f"{key}={at}")]
    )
    assert found.exit_code == 0, found.output
    sent = kubeflow.submitted[-1]["runtime_config"]["parameters"]
    assert addresses.items() <= sent.items()


def test_waiting_follows_the_run_and_the_exit_code_is_its_outcome(submit: Submit, kubeflow: Kubeflow) -> None:
    found = submit("--wait", "--granularity", "stage")
    assert found.exit_code == 0
    assert found.stdout.splitlines()[-1] == "succeeded"
    assert found.stderr.count("prepare: succeeded") == 1
    assert "driver" not in found.stderr
    assert "executor" not in found.stderr
    assert "pods are not seen" in found.stderr
    assert "the store s3://models/store cannot be read from here" in found.stderr
    for state in ("FAILED", "CANCELED"):
        kubeflow.states = ["RUNNING", state]
        found = submit("--wait", "--json")
        assert found.exit_code == 1
        assert json.loads(found.stdout)["state"] == state
        assert ("carry the run on: lmmpress submit " in found.stderr) == (state == "FAILED")


def test_a_run_that_is_deleted_while_it_is_followed_is_one_line(submit: Submit, kubeflow: Kubeflow) -> None:
    kubeflow.deleted = True
    found = submit("--wait", "--granularity", "stage")
    assert str(found.exception) == (
        "run r-1 was deleted in Kubeflow; nothing is lost: submit the plan again, and it carries on"
    )


def test_a_failed_request_is_repeated(submit: Submit, kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch) -> None:
    kubeflow.states = ["SUCCEEDED"]
    assert submit().exit_code == 0
    kubeflow.states = ["RUNNING", "SUCCEEDED"]
    original = kubeflow.answer

    def flaky(path: str, body: dict | None) -> dict | None:
        if path.endswith("/runs/r-1") and kubeflow.asked.count(path) < 2:
            kubeflow.asked.append(path)
            raise ConnectionResetError
        return original(path, body)

    monkeypatch.setattr(kubeflow, "answer", flaky)
    assert submit("--wait").exit_code == 0


def test_an_unreachable_kubeflow_is_a_one_line_error(submit: Submit) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    for host in (nobody, "http://no-such-host.invalid"):
        found = submit(host=host)
        assert isinstance(found.exception, UserError)
        assert str(found.exception).startswith(f"Kubeflow at {host} cannot be reached")
        assert "\n" not in str(found.exception)


def test_a_pod_shows_the_token_that_its_file_holds_now(
    submit: Submit, kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Kubernetes writes a pod's token anew while the pod runs."""
    kubeflow.token, file = "first", tmp_path / "token"
    monkeypatch.delenv("KFP_TOKEN", raising=False)
    monkeypatch.setenv("KFP_TOKEN_FILE", str(file))
    found = submit()
    assert str(found.exception) == f"KFP_TOKEN_FILE: {file} cannot be read: No such file or directory"
    file.write_text("first\n", "utf-8")
    assert submit().exit_code == 0
    kubeflow.token = "second"
    assert "the token in KFP_TOKEN_FILE is not taken" in str(submit().exception)
    file.write_text("second\n", "utf-8")
    assert submit().exit_code == 0
    monkeypatch.setenv("KFP_TOKEN", "second")
    file.write_text("third\n", "utf-8")
    assert submit().exit_code == 0, "the variable counts before the file"


def test_an_expired_token_and_a_missing_one_have_different_errors(
    submit: Submit, kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeflow.token = "fresh"
    monkeypatch.delenv("KFP_TOKEN", raising=False)
    assert "set a token in KFP_TOKEN" in str(submit().exception)
    monkeypatch.setenv("KFP_TOKEN", "stale")
    found = submit()
    assert "may have expired" in str(found.exception)
    assert "stale" not in str(found.exception)
    monkeypatch.setenv("KFP_TOKEN", "fresh")
    assert submit().exit_code == 0
    # one that expires while a run is followed ends the following, and not the run
    original = kubeflow.answer

    def expiring(path: str, body: dict | None) -> dict | None:
        if path.endswith("/runs/r-1"):
            kubeflow.token = "another"
        return original(path, body)

    monkeypatch.setattr(kubeflow, "answer", expiring)
    kubeflow.states = ["RUNNING"]
    assert "may have expired" in str(submit("--wait").exception)


def test_a_login_page_is_reported(submit: Submit, kubeflow: Kubeflow) -> None:
    kubeflow.login_page = True
    assert "asks people to log in" in str(submit().exception)


def test_an_error_of_the_server_is_a_one_line_error(submit: Submit, kubeflow: Kubeflow) -> None:
    kubeflow.faults = [500, 500, 500]
    found = submit()
    assert isinstance(found.exception, UserError)
    assert "Kubeflow at" in str(found.exception)
    assert "\n" not in str(found.exception)


def test_a_plan_with_addresses_that_pods_cannot_reach_is_not_submitted(submit: Submit, kubeflow: Kubeflow) -> None:
    for change in ({"model": "./antgmm"}, {"store": None}, {"data": "/elsewhere/maad"}):
        found = submit(**change)
        assert "which pods cannot reach" in str(found.exception)
    assert not kubeflow.submitted
