"""A person's approval between stages: a record in the store, whatever runs the pipeline."""

from pathlib import Path
from typing import Any

import pytest
from support.argo_runner import in_this_process
from support.argo_workflows import let_the_lease_run_out, short, workflow

from lmmpress.errors import UserError
from lmmpress.plan import parse_plan
from lmmpress.store import open_store
from lmmpress.tasks.approval import approve

pytestmark = pytest.mark.usefixtures("trusting")


@pytest.fixture
def waiting_plan(raw_plan: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    return short(raw_plan, tmp_path) | {"pipeline": {"approve": ["block"]}}


def test_an_unknown_stage_is_refused(raw_plan: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"there is no stage 'blok'; did you mean 'block'"):
        parse_plan(raw_plan | {"pipeline": {"approve": ["blok"]}})


def test_a_workflow_waits_for_a_person_and_another_one_goes_on_from_there(
    waiting_plan: dict[str, Any], tmp_path: Path
) -> None:
    first = workflow(waiting_plan, tmp_path / "first")
    assert first.start() == "Running"
    assert first.waits_for is not None
    assert first.waits_for["stage"] == "block"
    assert "importance" not in first.parts()
    store, run = waiting_plan["store"], first.waits_for["run"]
    known, given = approve(store, run[:12])
    assert (known.name, given.stage) == (run, "block")
    let_the_lease_run_out(waiting_plan)
    # what the store holds is known to any other submission, which asks nobody again
    second = workflow(waiting_plan, tmp_path / "second")
    assert second.start() == "Succeeded", second.failures
    assert "block-prune" not in second.parts()
    assert second.parts().count("gate") == 1
    assert second.parts().count("approval") == 1


def test_whoever_resumes_the_workflow_has_approved(waiting_plan: dict[str, Any], tmp_path: Path) -> None:
    asked: list[dict[str, str]] = []

    def resumed(inputs: dict[str, str]) -> bool:
        asked.append(inputs)
        return True

    ran = workflow(waiting_plan, tmp_path / "pods", approve=resumed)
    assert ran.start() == "Succeeded", ran.failures
    assert [one["stage"] for one in asked] == ["block"]
    store = open_store(waiting_plan["store"])
    (record,) = [one.name for one in store.objects.entries("records/approval-")]
    assert "resumed" in str(store.read_record(record.removeprefix("records/").removesuffix(".json")))


def test_approvals_that_nobody_waits_for_are_refused(waiting_plan: dict[str, Any], tmp_path: Path) -> None:
    def until_the_gate(command: list[str], environment: dict[str, str]) -> Any:
        ended = in_this_process(command, environment)
        return ended if command[2] != "due" else type(ended)(2, "main: Error (exit code 2)")

    stopped = workflow(waiting_plan, tmp_path / "pods", run=until_the_gate)
    assert stopped.start() == "Failed"
    store = waiting_plan["store"]
    run = stopped.outputs["prepared"].split('"run": "')[1][:12]
    with pytest.raises(UserError, match="block has not ended; --stage block approves in advance"):
        approve(store, run)
    with pytest.raises(UserError, match="waits for no approval after stage 'ffn'"):
        approve(store, run, "ffn")
    with pytest.raises(UserError, match="no pipeline has made a run"):
        approve(store, "0000000000")
    assert approve(store, run, "block")[1].stage == "block"
    with pytest.raises(UserError, match="every approval of its plan is given"):
        approve(store, run)


def test_a_pipeline_that_was_compiled_for_other_approvals_is_refused(
    waiting_plan: dict[str, Any], tmp_path: Path
) -> None:
    ran = workflow(waiting_plan, tmp_path / "pods")
    ran.parameters = {"settings": ran.default("settings").replace('["block"]', "[]")}
    assert ran.start() == "Failed"
    assert "compiled for block; compile the plan anew" in ran.pods[0].ended.message
