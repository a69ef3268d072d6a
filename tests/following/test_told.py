"""What a person is told of a run: by its state in the store, where the decisions are, and by its pods."""

import uuid
from pathlib import Path
from typing import Any

import pytest
from support.argo_pods import done
from support.decisions import decision

from lmmpress.following.run_in_store import RunInStore
from lmmpress.following.told import Told
from lmmpress.plan import Plan, parse_plan
from lmmpress.pods.seen_pods import PodSeen
from lmmpress.printing.numbers import in_time
from lmmpress.store import Store, open_store
from lmmpress.tasks.submission import Submission, note_submission

KEY, ORIGINAL = "a" * 64, "0" * 64
DIGESTS = [f"{number}" * 64 for number in range(1, 9)]
STAGES = {"block": {"step": 1, "max": 3}, "ffn": {"step": 16, "max": 16}}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def plan(store: Store) -> Plan:
    return parse_plan({"model": "s3://m/m", "data": "s3://m/d", "store": store.root_address, "stages": STAGES})


def submit(store: Store, plan: Plan, pipeline: str) -> None:
    submission = Submission(plan=plan, name="n", key=KEY, original=ORIGINAL, about={"pipeline_run": pipeline, "x": "y"})
    note_submission(store, f"{KEY[:12]}-{uuid.uuid4().hex[:8]}", submission)


def decide(store: Store, *entries: dict[str, Any]) -> None:
    with store.run_state(KEY) as state:
        for entry in entries:
            state.decide(len(state.history()), entry)


def block(index: int, parent: str, made: str, **changes: Any) -> dict[str, Any]:
    seconds = {"prune": 20.0, "distill": 100.0}
    return decision(parent, made, stage="block", index=index, removed=1, seconds=seconds) | changes


class Listener:
    def __init__(self, plan: Plan, pipeline: str = "r-2") -> None:
        self.lines: list[str] = []
        assert plan.store
        self.told = Told(plan, self.lines.append, RunInStore(plan.store, {"pipeline_run": pipeline}))

    def hears(self, *pods: dict[str, Any]) -> list[str]:
        """The lines that are new at this look."""
        before = len(self.lines)
        news = self.told.look([PodSeen.of(pod) for pod in pods])
        assert news == any(not line.startswith("run ") for line in self.lines[before:])
        return self.lines[before:]


def test_parts_and_decisions_are_told_once_in_their_order_and_steps_count_from_one(store: Store, plan: Plan) -> None:
    submit(store, plan, "r-1")
    submit(store, plan, "r-2")
    heard = Listener(plan)
    pods = [done("a", "prepare", "", 0, 1), done("b", "evaluate", "", 1, 1.5), done("c", "due", "block", 2, 3)]
    assert heard.hears(*pods) == [
        "run aaaaaaaaaaaa: at most 4 steps",
        "prepare: done (1:00)",
        "evaluate the original: done (0:30)",
    ]
    pods += [done("d", "block_prune", "block", 3, 4), done("e", "distill", "block", 4, 6)]
    assert heard.hears(*pods) == ["block, step 1 of 3: prune: done (1:00)", "block, step 1 of 3: distill: done (2:00)"]
    decide(store, block(0, ORIGINAL, DIGESTS[0]), block(1, DIGESTS[0], DIGESTS[1], decision="rolled back"))
    failed = done("f", "distill", "block", 7, 8, exitCode=1)
    pods += [done("g", "block_prune", "block", 6, 7), failed, done("h", "distill", "block", 8, 9)]
    pods += [done("i", "importance", "ffn", 9, 10)]
    assert heard.hears(*pods) == [
        "block, step 1 of 3: accepted, accuracy 0.9800: drop 0.0100 is below alpha 0.1500",
        "block, step 2 of 3: prune: done (1:00)",
        "block, step 2 of 3: distill: done (1:00)",
        "block, step 2 of 3: rolled back, accuracy 0.9800: drop 0.0100 is below alpha 0.1500; at most 2:00 left",
        "ffn, step 1 of 1: importance: done (1:00)",
    ]
    assert heard.hears(*pods) == []
    pods += [done("j", "evaluate", "", 12, 13), done("k", "publish", "", 13, 14)]
    assert heard.hears(*pods) == ["evaluate the result: done (1:00)", "publish: done (1:00)"]


def test_steps_are_those_of_the_numbers_that_shares_became(store: Store, plan: Plan) -> None:
    """The first task knows the model; a plan with shares knows only how many steps there may be."""
    submit(store, plan, "r-2")
    shares = {axis: {"step": "25%", "max": "75%"} for axis in STAGES}
    heard = Listener(parse_plan(plan.model_dump(mode="json") | {"stages": shares}))
    prune = done("d", "block_prune", "block", 3, 4)
    assert heard.hears(prune) == ["run aaaaaaaaaaaa: at most 4 steps", "block, step 1 of 3: prune: done (1:00)"]


def test_a_run_that_is_carried_on_goes_on_counting(store: Store, plan: Plan) -> None:
    decide(store, block(0, ORIGINAL, DIGESTS[0]))
    submit(store, plan, "r-2")
    heard = Listener(plan)
    assert heard.hears() == ["run aaaaaaaaaaaa: at most 4 steps, carries on after 1"]
    assert heard.hears(done("d", "block_prune", "block", 3, 4)) == ["block, step 2 of 3: prune: done (1:00)"]


def test_by_stage_the_decisions_come_from_the_store(store: Store, plan: Plan) -> None:
    submit(store, plan, "r-2")
    heard = Listener(plan)
    heard.hears()
    decide(store, block(0, ORIGINAL, DIGESTS[0]))
    assert heard.hears() == [
        "block, step 1 of 3: accepted, accuracy 0.9800: drop 0.0100 is below alpha 0.1500; at most 6:00 left"
    ]
    decide(store, block(1, DIGESTS[0], DIGESTS[1], decision="rolled back"))
    assert heard.hears(done("s", "stage", "block", 0, 10))[-1] == "stage block: done (10:00), 1 of 2 steps accepted"


def test_a_store_out_of_reach_is_told_once_and_the_parts_are_told_all_the_same(tmp_path: Path, plan: Plan) -> None:
    away = plan.model_copy(update={"store": str(tmp_path / "away")})
    heard = Listener(away)
    first, second = heard.hears(done("d", "block_prune", "block", 3, 4))
    assert first.startswith(f"the store {tmp_path / 'away'} cannot be read from here, so decisions are not told: ")
    assert second == "block, step 1 of 3: prune: done (1:00)"
    assert heard.hears(done("e", "distill", "block", 4, 5)) == ["block, step 1 of 3: distill: done (1:00)"]


def test_other_submissions_do_not_count(store: Store, plan: Plan) -> None:
    submit(store, plan, "r-1")
    heard = Listener(plan)
    assert heard.hears() == []
    store.write_record("submission-bbbbbbbbbbbb-00000000", {"submission": "of a version to come"})
    assert heard.hears() == []
    submit(store, plan, "r-2")
    assert heard.hears() == ["run aaaaaaaaaaaa: at most 4 steps"]


def test_times_are_for_people() -> None:
    assert [in_time(one) for one in (-1, 0.4, 42, 785, 3600, 7800)] == [
        "0:00",
        "0:00",
        "0:42",
        "13:05",
        "1 h 0 min",
        "2 h 10 min",
    ]
