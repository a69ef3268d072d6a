"""Submitting to Argo over real HTTP: what is sent, how a workflow is followed, and the errors."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.argo_api import ArgoApi, Object
from support.plans import PLAN, PROFILE
from typer.testing import CliRunner, Result

from lmmpress.argo.cluster import connect
from lmmpress.argo.resume import resume
from lmmpress.cli.app import app
from lmmpress.errors import UserError
from lmmpress.tasks.cluster_profile import Profile

Submit = Callable[..., Result]
RUN = "0123456789ab-01234567"


def node(name: str, template: str, phase: str = "Succeeded", result: Object | None = None, **more: Any) -> Object:
    """A node as Argo's controller writes it, of the fields that are read."""
    inputs = {key: more.pop(key) for key in ("run", "stage", "index") if key in more}
    found = {
        "id": f"lmmpress-antgmm-abcde-{name}",
        "name": name,
        "type": "Pod",
        "templateName": template,
        "phase": phase,
        "startedAt": f"2026-11-29T09:{int(name):02}:00Z",
        "inputs": {"parameters": [{"name": key, "value": value} for key, value in inputs.items()]},
    }
    if phase != "Running":
        found["finishedAt"] = f"2026-11-29T09:{int(name):02}:12Z"
    if result is not None:
        found["outputs"] = {"parameters": [{"name": "result", "value": json.dumps(result)}]}
    return found | more


PREPARED = node("1", "prepare", result={"outputs": {"run": RUN}})
GATED = node(
    "4",
    "gate",
    stage="block",
    index="0",
    result={"facts": {"decision": "accepted"}, "metrics": {"accuracy": 0.71875}},
)


def status(phase: str, *nodes: Object, **more: Any) -> Object:
    return {"phase": phase, "nodes": {one["id"]: one for one in nodes}} | more


@pytest.fixture
def argo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ArgoApi]:
    server = ArgoApi(status("Running", PREPARED), status("Succeeded", PREPARED, GATED))
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path)))
    monkeypatch.setattr("lmmpress.argo.follow.PAUSE", 0.01)
    yield server
    server.stop()


@pytest.fixture
def submit(argo: ArgoApi, tmp_path: Path) -> Submit:
    def run(*options: str, **profile: Any) -> Result:
        (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN), "utf-8")
        (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(PROFILE | {"engine": "argo"} | profile), "utf-8")
        command = ["submit", str(tmp_path / "plan.yaml"), "--cluster", str(tmp_path / "cluster.yaml"), "--no-checks"]
        return CliRunner().invoke(app, [*command, *options])

    return run


def test_a_plan_becomes_a_workflow_and_its_name_is_shown(submit: Submit, argo: ArgoApi) -> None:
    found = submit()
    assert found.exit_code == 0, found
    assert found.stdout.strip() == "kubectl get workflow lmmpress-antgmm-abcde -n team-ads"
    (sent,) = argo.workflows.values()
    assert sent["kind"] == "Workflow"
    parameters = {one["name"]: one["value"] for one in sent["spec"]["arguments"]["parameters"]}
    assert (parameters["alpha"], parameters["block_step"], parameters["store"]) == ("0.15", "4", "s3://models/store")
    pages = submit(argo={"ui": "https://argo.example.com/"})
    assert pages.stdout.strip() == "https://argo.example.com/workflows/team-ads/lmmpress-antgmm-abcde"


def test_waiting_tells_each_part_and_decision(submit: Submit) -> None:
    found = submit("--wait")
    assert found.exit_code == 0, found
    told = found.stderr.splitlines()
    assert told[0].startswith("the store s3://models/store cannot be read from here")
    assert told[1:] == ["prepare: done (0:12)", "block 1: accepted, accuracy 0.7188"]
    assert found.stdout.splitlines()[-1] == "succeeded"


def test_a_failed_part_is_told_with_its_pod_and_reason(submit: Submit, argo: ArgoApi) -> None:
    said = "main: OOMKilled (exit code 137)"
    failed = node("3", "distill", "Failed", stage="block", index="0", message=said)
    argo.states = [status("Failed", PREPARED, failed)]
    found = submit("--wait")
    assert found.exit_code == 1
    assert f"block 1 distill: failed (0:12): {said} (pod lmmpress-antgmm-abcde-distill-3)" in found.stderr
    assert "what was computed is kept; carry the run on: lmmpress submit" in found.stderr


def test_a_fault_of_the_user_is_the_tasks_own_line(submit: Submit, argo: ArgoApi) -> None:
    """Such as a run that another cluster works on."""
    line = "s3://models/store: another process works on this run (gpu-7, process 1); wait for it or end it"
    as_object = json.dumps({"time": "2026-11-30T05:20:44.526Z", "level": "error", "message": line})
    for said in (f"error: {line}", as_object):
        message = f"main: Error (exit code 2): reading\n{said}\n"
        argo.states = [status("Failed", node("1", "prepare", "Failed", message=message))]
        found = submit("--wait")
        assert isinstance(found.exception, UserError)
        assert str(found.exception) == f"workflow lmmpress-antgmm-abcde: prepare: {line}"


def test_a_workflow_that_waits_for_a_person_says_how_it_goes_on(submit: Submit, argo: ArgoApi) -> None:
    waits = node("5", "wait-for-approval", "Running", stage="block", run=RUN) | {"type": "Suspend"}
    argo.states = [status("Running", PREPARED, waits), status("Succeeded", PREPARED)]
    assert f"waits for an approval after stage block: lmmpress approve {RUN} --store" in submit("--wait").stderr


@pytest.mark.parametrize("conflicts", [0, 2])
def test_an_approval_resumes_the_suspended_node(submit: Submit, argo: ArgoApi, conflicts: int) -> None:
    submit()
    (workflow,) = argo.workflows.values()
    waits = node("5", "wait-for-approval", "Running", stage="block", run=RUN) | {"type": "Suspend"}
    workflow["status"] = status("Running", PREPARED, waits)
    argo.conflicts = conflicts
    api = connect(Profile())
    assert resume(api, "f" * 64, "block", "ada") == []
    assert resume(api, RUN[:12] + "f" * 52, "ffn", "ada") == []
    assert resume(api, RUN[:12] + "f" * 52, "block", "ada") == ["lmmpress-antgmm-abcde"]
    ended = argo.workflows["lmmpress-antgmm-abcde"]["status"]["nodes"][waits["id"]]
    assert (ended["phase"], ended["message"]) == ("Succeeded", "approved by ada")
    assert resume(api, RUN[:12] + "f" * 52, "block", "ada") == []


def test_a_workflow_that_is_named_is_resumed_without_the_right_to_list(submit: Submit, argo: ArgoApi) -> None:
    """The trigger's account has no more than it needs."""
    submit()
    (name,) = argo.workflows
    waits = node("5", "wait-for-approval", "Running", stage="block", run=RUN) | {"type": "Suspend"}
    argo.workflows[name]["status"] = status("Running", PREPARED, waits)
    argo.lists = False
    api, key = connect(Profile()), RUN[:12] + "f" * 52
    with pytest.raises(UserError, match="forbidden"):
        resume(api, key, "block", "ada")
    assert resume(api, key, "block", "ada", "another") == []
    assert resume(api, key, "block", "ada", name) == [name]


def _without_argo(argo: ArgoApi) -> None:
    argo.installed = False


def _too_old(argo: ArgoApi) -> None:
    argo.image = "quay.io/argoproj/workflow-controller:v3.4.11"


def _elsewhere(argo: ArgoApi) -> None:
    argo.args = ["--namespaced", "--managed-namespace=research"]


def _its_own_namespace(argo: ArgoApi) -> None:
    argo.args = ["--namespaced"]


def _instance(argo: ArgoApi) -> None:
    argo.settings = {"instanceID": "research"}


def _no_results(argo: ArgoApi) -> None:
    argo.denied = {"patch"}


def _deleted(argo: ArgoApi) -> None:
    argo.states, argo.deleted = [status("Running", PREPARED)], True


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (_without_argo, "Argo Workflows is not installed there, or its CRD workflows.argoproj.io is missing"),
        (_too_old, "Argo 3.4 is too old: retries by cause need 3.5 or newer"),
        (_elsewhere, "looks at namespace research only: a workflow in team-ads would never begin"),
        (_its_own_namespace, "looks at namespace argo only: a workflow in team-ads would never begin"),
        (_instance, "takes only workflows of its instance research: set argo.instance: research"),
        (_no_results, "service account lmmpress in team-ads may not patch workflowtaskresults.argoproj.io"),
        (_deleted, "was deleted; nothing is lost: submit the plan again, and it carries on"),
    ],
)
def test_what_a_user_can_mend_is_one_line(
    submit: Submit, argo: ArgoApi, broken: Callable[[ArgoApi], None], said: str
) -> None:
    broken(argo)
    found = submit("--wait")
    assert isinstance(found.exception, UserError), found
    assert said in str(found.exception)
    assert "\n" not in str(found.exception)


def test_a_workflow_that_no_controller_takes_up_is_told(
    submit: Submit, argo: ArgoApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmmpress.argo.follow.QUIET", -1.0)
    argo.states = [{}, status("Succeeded", PREPARED)]
    assert "Argo has not taken up workflow lmmpress-antgmm-abcde; does its controller run" in submit("--wait").stderr


def test_a_newer_argo_is_warned_of_and_an_older_one_gets_its_own_mutex(submit: Submit, argo: ArgoApi) -> None:
    argo.image = "registry.example.com/workflow-controller:v4.2.0@sha256:" + "1" * 64
    assert "Argo 4.2 is newer than 4.1, the newest that was tried" in submit().stderr
    argo.image = "quay.io/argoproj/workflow-controller:v3.5.15"
    assert submit().exit_code == 0
    (sent,) = argo.workflows.values()
    assert {"mutex"} == {key for one in sent["spec"]["templates"] for key in one.get("synchronization", {})}
