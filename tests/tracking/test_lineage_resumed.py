"""Recording twice, and after runs that were cut off, interrupted, killed or resumed."""

from pathlib import Path

import pytest
from support.lineage import STEPS, again, content, nested_runs, on_both, parent_run, rows, run_info, tell

from lmmpress.tracking.lineage import Lineage

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


@on_both
def test_recording_everything_twice_changes_nothing(lineage: Lineage, store: tuple[str, Path]) -> None:
    tell(lineage, "twice")
    before = content(store[1])
    tell(lineage, "twice")
    tell(again(lineage), "twice")
    assert content(store[1]) == before


def test_the_same_run_for_another_model_is_registered_under_its_name_too(lineage: Lineage) -> None:
    """As where two registered models hold the same checkpoint, and both are compressed by one plan."""
    tell(lineage, "shared")
    other = Lineage(lineage.tracking_uri, "another-compressed", lineage.experiment)
    for _ in range(2):
        tell(other, "shared")
        versions = lineage.client.search_model_versions("name='another-compressed'")
        assert [version.tags["lmmpress.run_key"] for version in versions] == ["shared"]
    assert parent_run(other).info.run_id == versions[0].run_id


def test_an_interrupted_recording_is_completed_and_not_doubled(lineage: Lineage, store: tuple[str, Path]) -> None:
    tell(lineage, "cut-off")
    before = rows(store[1])
    for run in [parent_run(lineage), *nested_runs(lineage).values()]:
        lineage.client.delete_tag(run.info.run_id, "lmmpress.recorded")
    tell(again(lineage), "cut-off")
    assert rows(store[1]) == before


def test_an_interrupted_run_is_marked_and_goes_on_when_resumed(lineage: Lineage) -> None:
    lineage.begin(run_info("interrupted"))
    lineage.step(STEPS[0])
    lineage.interrupted(KeyboardInterrupt())
    assert parent_run(lineage).info.status == "KILLED"
    lineage.interrupted(ValueError("no space left"))
    assert parent_run(lineage).info.status == "FAILED"
    resumed = again(lineage)
    resumed.begin(run_info("interrupted"))
    assert parent_run(resumed).info.status == "RUNNING"
    tell(resumed, "interrupted")
    assert parent_run(resumed).info.status == "FINISHED"
    assert sorted(nested_runs(resumed)) == [1, 2, 3, 4]
    resumed.interrupted(ValueError("too late"))
    assert parent_run(resumed).info.status == "FINISHED"


def killed(lineage: Lineage) -> None:
    """Leave a run as a process that is killed while it records its second step."""
    lineage.begin(run_info("killed"))
    lineage.step(STEPS[0])
    lineage._start_step("block/2", STEPS[1])


@on_both
def test_the_runs_of_a_killed_process_are_ended_by_the_next_one(lineage: Lineage) -> None:
    killed(lineage)
    resumed = again(lineage)
    resumed.take_over("another run")
    assert parent_run(lineage).info.status == "RUNNING", "it may be somebody's work"
    resumed.take_over("killed")
    assert parent_run(resumed).info.status == "KILLED"
    assert [nested_runs(resumed)[index].info.status for index in (1, 2)] == ["FINISHED", "KILLED"]
    tell(resumed, "killed")
    assert parent_run(resumed).info.status == "FINISHED"
    assert {run.info.status for run in nested_runs(resumed).values()} == {"FINISHED"}
    assert sorted(nested_runs(resumed)) == [1, 2, 3, 4]


def test_a_run_stays_running_between_two_tasks_of_one_submission(lineage: Lineage) -> None:
    first, second, other = (
        Lineage(lineage.tracking_uri, lineage.model_name, lineage.experiment, holder=holder)
        for holder in ("submission-1", "submission-1", "submission-2")
    )
    first.begin(run_info("shared"))
    second.take_over("shared")
    assert parent_run(second).info.status == "RUNNING"
    other.failed("shared")
    assert parent_run(second).info.status == "RUNNING", "the run is not its own"
    second.failed("shared")
    assert parent_run(second).info.status == "FAILED"
    other.begin(run_info("shared"))
    assert parent_run(other).info.status == "RUNNING"
    first.take_over("shared")
    assert parent_run(other).info.status == "KILLED", "the first submission has the lease again"
