"""The tasks of a run by Kubeflow's API, as Kubeflow 2.17 answered of a run by step (recorded)."""

import json
from types import SimpleNamespace
from typing import Any

from support.paths import ROOT

from lmmpress.kubeflow.tasks_seen import tasks_of

RECORDED = json.loads((ROOT / "tests" / "kubeflow" / "recorded_api" / "tasks_by_step.json").read_text("utf-8"))
PARTS = [f"block-{part}" for part in ("due", "prune", "distill", "evaluate", "gate")]
NAMES = frozenset(["prepare", "evaluate-the-original", "steps-of-block", *PARTS, "publish"])


def answer(*tasks: dict[str, Any]) -> Any:
    details = [SimpleNamespace(**one) for one in tasks]
    return SimpleNamespace(run_details=SimpleNamespace(task_details=details))


def test_the_tasks_of_a_real_run_are_told_by_their_names_in_their_order_and_nothing_else() -> None:
    assert len(RECORDED) == 57
    assert len({one["create_time"] for one in RECORDED}) == 1
    found = tasks_of(answer(*RECORDED), NAMES)
    assert list(found) == ["prepare", "evaluate-the-original", "steps-of-block", "block-due", "block-prune"]
    assert set(found.values()) == {"SUCCEEDED"}


def test_a_task_that_runs_again_is_numbered_and_older_argo_has_no_second_nodes() -> None:
    bare = [one for one in RECORDED if not one["display_name"].endswith(")")]
    assert tasks_of(answer(*bare), NAMES) == tasks_of(answer(*RECORDED), NAMES)
    again = [one | {"start_time": "2026-11-29T10:00:00Z", "state": "FAILED"} for one in RECORDED]
    found = tasks_of(answer(*RECORDED, *again), NAMES)
    assert found["block-prune"] == "SUCCEEDED"
    assert found["block-prune (2)"] == "FAILED"


def test_an_answer_without_tasks_has_none() -> None:
    assert tasks_of(SimpleNamespace(run_details=None), NAMES) == {}
    assert tasks_of(answer(), NAMES) == {}
