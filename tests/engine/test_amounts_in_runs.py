"""A run of a plan with shares is the run of the plan with the numbers that they become, however it is made."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support import task_functions as tasks
from support.argo_workflows import workflow
from support.plans import tiny_plan
from support.results import essence
from support.tasks import prepared, result_of, walk

import lmmpress
from lmmpress.engine.compression import compress
from lmmpress.plan import Plan, parse_plan
from lmmpress.result import Result
from lmmpress.store import open_store
from lmmpress.tasks.granularity import Granularity
from lmmpress.tasks.submission import read_submission

pytestmark = pytest.mark.usefixtures("trusting")
TOWERS = {"towers": ["vision", "language"]}
SHARES = {"block": {"step": "25%", "max": "50%"}, "ffn": {"step": "25%", "max": "25%"}}
NUMBERS = {
    "block": {"step": 1, "max": {"vision": 1, "language": 2}},
    "ffn": {"step": {"vision": 12, "language": 16}, "max": {"language": 16, "vision": 12}},
}
STEPS = [
    ("block", 0, "vision", 1),
    ("block", 1, "language", 1),
    ("block", 2, "language", 1),
    ("ffn", 0, "vision", 12),
    ("ffn", 1, "language", 16),
]


class Explicit(NamedTuple):
    """A run of a plan with whole numbers by tower: its plan, its folder, and its result."""

    raw: dict[str, Any]
    out: Path
    result: Result


@pytest.fixture(scope="module")
def explicit(taught: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Explicit:
    out = tmp_path_factory.mktemp("explicit") / "out"
    raw = tiny_plan(taught, data) | TOWERS | {"stages": NUMBERS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lmmpress.engine.parts.load.verify_for_users", lambda checkpoint: None)
        return Explicit(raw, out, compress(parse_plan(raw), out))


@pytest.fixture
def shares(explicit: Explicit, tmp_path: Path) -> dict[str, Any]:
    return explicit.raw | {"stages": SHARES, "store": str(tmp_path / "store")}


def assert_same(found: Result, explicit: Explicit) -> None:
    assert found.run_key == explicit.result.run_key
    assert essence(found) == essence(explicit.result)
    assert found.compressed.checkpoint == explicit.result.compressed.checkpoint


def test_amounts_by_tower_are_the_steps_of_each_tower(explicit: Explicit) -> None:
    assert [(step.stage, step.index, step.tower, step.removed) for step in explicit.result.steps] == STEPS
    assert {step.decision for step in explicit.result.steps} == {"accepted"}


def test_a_run_with_shares_is_the_run_with_their_numbers_and_keeps_the_numbers(
    explicit: Explicit, tmp_path: Path
) -> None:
    heard: list[str] = []

    def hear(event: object) -> None:
        heard.extend([event.words] if isinstance(event, lmmpress.Said) else [])

    raw, out = explicit.raw | {"stages": SHARES}, tmp_path / "out"
    assert_same(lmmpress.compress(raw, out, recorder=None, progress=hear), explicit)
    assert "ffn of the vision tower: step 25% is 12, max 25% is 12" in heard
    assert Plan.model_validate_json((out / "plan.json").read_text("utf-8")).stages == parse_plan(explicit.raw).stages
    assert "25%" not in (out / "result.json").read_text("utf-8")
    page = (out / "report.html").read_text("utf-8")
    assert "vision: 12" in page
    assert "step: 25%" not in page
    record = json.loads((out / "compressed" / "COMPRESSION.json").read_text("utf-8"))
    assert record["plan"]["stages"]["ffn"] == NUMBERS["ffn"]
    again = lmmpress.compress(explicit.raw, out, recorder=None, resume=True)
    assert_same(again, explicit)


def test_tasks_of_a_pipeline_make_numbers_of_shares_once(
    explicit: Explicit, shares: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert len([name for name, task in walk(shares) if task() and name.startswith("gate")]) == len(STEPS)
    assert_same(result_of(shares), explicit)
    store, run, steps = prepared(shares)
    assert steps == {"block": [0, 1, 2], "ffn": [0, 1]}
    assert read_submission(open_store(store), run).plan.stages == parse_plan(explicit.raw).stages
    assert tasks.due(store, run, "ffn", 1) == "closed"


def test_a_workflow_of_argo_takes_shares_as_parameters(
    explicit: Explicit, shares: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    ran = workflow(shares, tmp_path / "pods", Granularity.stage)
    assert ran.start() == "Succeeded", ran.failures
    assert_same(result_of(shares), explicit)


def test_a_warm_run_with_shares_starts_from_a_run_with_their_numbers(explicit: Explicit, tmp_path: Path) -> None:
    raw = explicit.raw | {"stages": SHARES, "start_from": str(explicit.out)}
    start = lmmpress.plan_sizes(raw).start
    assert f"run {explicit.result.run_key[:12]}: first a jump over 5 steps" in start
    result = compress(parse_plan(raw), tmp_path / "out")
    (jump,) = result.steps
    assert [(step.stage, step.tower, step.removed) for step in jump.jump] == [
        (stage, tower, removed) for stage, _, tower, removed in STEPS
    ]
    assert result.compressed.parameters_by_tower == explicit.result.compressed.parameters_by_tower
    with pytest.raises(lmmpress.UserError, match=r"has other stages than this plan"):
        lmmpress.plan_sizes(raw, overrides=["stages.ffn.max=50%"])


def test_the_sizes_of_a_plan_say_which_numbers_shares_became(explicit: Explicit) -> None:
    sizes = lmmpress.plan_sizes(explicit.raw | {"stages": SHARES})
    assert [(size.stage, size.index, size.tower, size.removed) for size in sizes[1:]] == [
        ("block", 0, "vision", 1),
        ("block", 0, "language", 1),
        ("block", 1, "language", 1),
        ("ffn", 0, "vision", 12),
        ("ffn", 0, "language", 16),
    ]
    assert sizes.shares[0] == "block of the vision tower: step 25% is 1, max 50% is 1"
    assert set(sizes.shares) <= set(sizes.shown())
    assert sizes.as_list() == lmmpress.plan_sizes(explicit.raw).as_list()
    assert lmmpress.plan_sizes(explicit.raw).shares == ()
