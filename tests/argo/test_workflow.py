"""A plan as a workflow of Argo: what it runs, in which order, and where it begins."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.argo_runner import Ended, by_process, in_this_process
from support.argo_workflows import RETRIES, let_the_lease_run_out, short, workflow
from support.results import essence
from support.tasks import result_of, walk

from lmmpress.engine.compression import compress
from lmmpress.engine.kept import kept_comparison, kept_result
from lmmpress.plan import parse_plan
from lmmpress.store import open_store
from lmmpress.tasks.granularity import Granularity

pytestmark = pytest.mark.usefixtures("trusting")
PARTS = {
    "block": ["block_prune", "distill", "evaluate", "gate"],
    "ffn": ["importance", "ffn_prune", "distill", "evaluate", "gate"],
}


@pytest.fixture
def short_plan(raw_plan: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    return short(raw_plan, tmp_path)


def test_by_step_a_stage_calls_itself_while_a_step_is_due(short_plan: dict[str, Any], tmp_path: Path) -> None:
    ran = workflow(short_plan, tmp_path / "pods")
    assert ran.start() == "Succeeded", ran.failures
    block = ["due", *PARTS["block"], "due", *PARTS["block"], "due"]
    ffn = ["due", *PARTS["ffn"], "due"]
    assert ran.parts() == ["prepare", "evaluate", *block, *ffn, "evaluate", "publish"]
    assert [step.decision for step in result_of(short_plan).steps] == ["accepted"] * 3


def test_a_stage_ends_with_the_first_step_that_is_not_accepted(short_plan: dict[str, Any], tmp_path: Path) -> None:
    tight = short_plan | {"tolerance": {"alpha": 1e-9, "allow_zero": True}}
    ran = workflow(tight, tmp_path / "pods")
    assert ran.start() == "Succeeded", ran.failures
    assert ran.parts().count("gate") <= 3
    result = result_of(tight)
    assert ran.parts().count("gate") == len(result.steps)


def test_by_stage_each_stage_is_one_pod(short_plan: dict[str, Any], tmp_path: Path) -> None:
    ran = workflow(short_plan, tmp_path / "pods", Granularity.stage)
    assert ran.start() == "Succeeded", ran.failures
    assert ran.parts() == ["prepare", "stage", "stage", "publish"]


@pytest.mark.parametrize("granularity", Granularity)
def test_a_plan_that_asks_for_it_ends_with_a_comparison(
    short_plan: dict[str, Any], tmp_path: Path, granularity: Granularity
) -> None:
    plan = short_plan | {"compare": True}
    ran = workflow(plan, tmp_path / "pods", granularity)
    assert ran.start() == "Succeeded", ran.failures
    assert ran.parts()[-2:] == ["publish", "compare"]
    result, store = result_of(plan), open_store(plan["store"])  # which takes the run's lease: it is given back
    found = kept_comparison(store, result.run_key)
    assert found is not None
    assert (found.a.checkpoint, found.b.checkpoint) == (result.original.checkpoint, result.compressed.checkpoint)
    assert kept_result(store, result.run_key) == result


def test_a_comparison_that_is_killed_loses_no_result_and_is_made_by_the_next_workflow(
    short_plan: dict[str, Any], tmp_path: Path
) -> None:
    plan = short_plan | {"compare": True}

    def dies(command: list[str], environment: dict[str, str]) -> Ended:
        return Ended(137, "OOMKilled") if "compare" in command else in_this_process(command, environment)

    first = workflow(plan, tmp_path / "pods", Granularity.stage, run=dies)
    assert first.start() == "Failed"
    store = open_store(plan["store"])
    assert kept_result(store, result_of(plan).run_key) is not None, "it was published before"
    second = workflow(plan, tmp_path / "again", Granularity.stage)
    assert second.start() == "Succeeded", second.failures
    assert kept_comparison(store, result_of(plan).run_key) is not None


@pytest.mark.parametrize("granularity", Granularity)
def test_a_workflow_makes_the_decisions_and_checkpoints_of_a_laptop(
    short_plan: dict[str, Any], tmp_path: Path, granularity: Granularity
) -> None:
    there = workflow(short_plan, tmp_path / "pods", granularity)
    assert there.start() == "Succeeded", there.failures
    here = compress(parse_plan(short_plan | {"store": None}), tmp_path / "out")
    assert essence(result_of(short_plan)) == essence(here)


def killed_first(part: str, *ends: Ended) -> Callable[[list[str], dict[str, str]], Ended]:
    """A runner whose first tries of a part end so, as soon as they begin with their work."""
    left = list(ends)

    def killed(**arguments: Any) -> None:
        raise KeyboardInterrupt

    def run(command: list[str], environment: dict[str, str]) -> Ended:
        if command[2] != part or not left:
            return in_this_process(command, environment)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f"lmmpress.tasks.by_name.{part}", killed)
            try:
                return in_this_process(command, environment)
            except KeyboardInterrupt:
                return left.pop(0)

    return run


DELETED = Ended(-1, "pod deleted")
OUT_OF_MEMORY = Ended(137, "main: OOMKilled (exit code 137)")


def test_pods_that_the_cluster_takes_away_are_not_counted(short_plan: dict[str, Any], tmp_path: Path) -> None:
    evicted = Ended(-1, "The node was low on resource: memory.")
    preempted = Ended(143, "main: Error (exit code 143)")
    ends = [DELETED, evicted, preempted] * RETRIES + [OUT_OF_MEMORY] * RETRIES
    ran = workflow(short_plan, tmp_path / "pods", run=killed_first("distill", *ends))
    assert ran.start() == "Succeeded", ran.failures
    tries = [pod.environment for pod in ran.pods if pod.part == "distill"]
    assert tries[len(ends)]["LMMPRESS_TRY"] == str(len(ends))


def test_out_of_memory_is_tried_as_often_as_the_profile_says(short_plan: dict[str, Any], tmp_path: Path) -> None:
    ran = workflow(short_plan, tmp_path / "pods", run=killed_first("distill", *[OUT_OF_MEMORY] * 9))
    assert ran.start() == "Failed"
    # one more pod is started, which counts what it finds in the store and gives up at once
    codes = [pod.ended.code for pod in ran.pods if pod.part == "distill"]
    assert codes == [137] * (RETRIES + 1) + [3]


def test_a_fault_of_the_user_is_never_tried_again(short_plan: dict[str, Any], tmp_path: Path) -> None:
    ran = workflow(short_plan | {"data": str(tmp_path / "nothing")}, tmp_path / "pods")
    assert ran.start() == "Failed"
    assert [(pod.part, pod.ended.code) for pod in ran.pods] == [("prepare", 2), ("end", 0)]


def test_a_workflow_of_another_version_than_the_image_is_refused_at_once(
    short_plan: dict[str, Any], tmp_path: Path
) -> None:
    ran = workflow(short_plan, tmp_path / "pods")
    for template in ran.spec["templates"]:
        if "container" in template:
            template["container"]["args"][-1] = "99.0.0"
    assert ran.start() == "Failed"
    assert [pod.part for pod in ran.pods] == ["prepare", "end"]
    assert "was made by lmmpress 99.0.0, and the image has" in ran.pods[0].ended.message


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("alpha", "much", "tolerance.alpha"),
        ("block_step", "one", "block_step is no number: one"),
        ("settings", "{", "settings is no such JSON"),
        ("settings", "[]", "settings is no such JSON: it is no mapping"),
        ("stages", '[{"axis": "io", "step": 1, "max": 1}]', "was compiled for"),
    ],
)
def test_parameters_that_were_edited_by_hand_are_refused_in_one_line(
    short_plan: dict[str, Any], tmp_path: Path, name: str, value: str, said: str
) -> None:
    ran = workflow(short_plan, tmp_path / "pods", parameters={name: value})
    assert ran.start() == "Failed"
    message = ran.pods[0].ended.message
    assert (ran.pods[0].ended.code, said in message, "\n" in message) == (2, True, False), message


def test_a_workflow_that_fails_gives_the_lease_back_and_says_why(
    short_plan: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise the next submission would have to wait until the lease has run out."""
    broken = workflow(short_plan, tmp_path / "pods", run=killed_first("gate", Ended(2, "exit code 2")))
    assert broken.start() == "Failed"
    assert broken.parts()[-1] == "end"
    assert "has ended with 0 decided steps: Failed; its lease is given back" in capsys.readouterr().err
    again = workflow(short_plan, tmp_path / "again")
    assert again.start() == "Succeeded", again.failures


def test_a_run_that_one_engine_has_begun_is_carried_on_by_any_other(short_plan: dict[str, Any], tmp_path: Path) -> None:
    """Kubeflow's tasks make the first step, a workflow the second, a laptop the rest."""
    wanted = compress(parse_plan(short_plan | {"store": None}), tmp_path / "wanted")
    for name, task in walk(short_plan):
        task()
        if name.startswith("gate"):
            break
    let_the_lease_run_out(short_plan)
    stopped = workflow(short_plan, tmp_path / "pods", run=killed_first("importance", Ended(2, "exit code 2")))
    assert stopped.start() == "Failed"
    assert stopped.parts().count("gate") == 1
    ended = compress(parse_plan(short_plan), tmp_path / "out")
    assert essence(ended) == essence(wanted)
    whole = workflow(short_plan, tmp_path / "whole")
    assert whole.start() == "Succeeded", whole.failures
    assert "gate" not in whole.parts()
    assert essence(result_of(short_plan)) == essence(wanted)


@pytest.mark.long
def test_the_commands_of_a_workflow_run_as_processes(short_plan: dict[str, Any], tmp_path: Path) -> None:
    """One step of each stage: every part of a workflow is a process at least once."""
    stages = {name: {"step": stage["step"], "max": stage["step"]} for name, stage in short_plan["stages"].items()}
    ran = workflow(short_plan | {"stages": stages}, tmp_path / "pods", run=by_process)
    assert ran.start() == "Succeeded", ran.failures
    assert {*ran.parts()} == {"prepare", "due", *PARTS["block"], *PARTS["ffn"], "publish"}
