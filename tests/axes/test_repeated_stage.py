"""A stage that comes twice, and one with a tower of its own, work in every engine under names of their own.

test_toy_axis.py has such stages, too, in the processes of Kubeflow's local runner.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.certain import certain
from support.cli import run
from support.engines import (
    GRANULARITIES,
    assert_same,
    by_the_tasks_of_a_pipeline,
    by_this_process,
)

from lmmpress.plan import Plan, parse_plan
from lmmpress.reporting.page import render
from lmmpress.tracking.client import local_store, open_client

STAGES = [
    {"axis": "block", "step": 1, "max": 1},
    {"axis": "ffn", "tower": "vision", "step": 16, "max": 16},
    {"axis": "block", "step": 1, "max": 1},
]
STEPS = [("block", 0, "language"), ("ffn", 0, "vision"), ("block-2", 0, "language")]


@pytest.fixture
def raw(raw_plan: dict[str, Any]) -> dict[str, Any]:
    return raw_plan | {"stages": STAGES}


@pytest.mark.usefixtures("trusting")
def test_every_engine_comes_to_the_same(
    raw: dict[str, Any], lineage_in: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "one"
    one = by_this_process(raw, out, lineage_in)
    assert [(step.stage, step.index, step.tower) for step in one.steps] == STEPS
    for granularity in GRANULARITIES:
        folder = tmp_path / granularity
        found, pipeline = by_the_tasks_of_a_pipeline(raw, granularity, folder, lineage_in, monkeypatch)
        assert_same(raw, found, folder, one, out)
        if granularity == "step":
            cuts = [name for name in pipeline.ran if "_prune" in name]
            assert cuts == ["block_prune block 0", "ffn_prune ffn 0", "block_prune block-2 0"]
        else:
            assert pipeline.ran == ["prepare", "stage block", "stage ffn", "stage block-2", "publish"]

    # what is left of the plan: in the run's folder, in the checkpoint, in the report, in MLflow
    assert Plan.model_validate_json((out / "plan.json").read_text("utf-8")) == parse_plan(raw)
    record = json.loads((out / "compressed" / "COMPRESSION.json").read_text("utf-8"))
    assert record["plan"]["stages"] == STAGES
    assert Plan.model_validate(record["plan"]) == parse_plan(raw)
    assert "by a plan of block -1, ffn -16, block-2 -1, with alpha" in " ".join(
        run("inspect", out / "compressed").split()
    )
    page = render(one, parse_plan(raw))
    assert "3 block-2 language" in page
    client = open_client(local_store(out))
    experiment = certain(client.get_experiment_by_name("lmmpress")).experiment_id
    (whole,) = client.search_runs([experiment], "tags.`lmmpress.kind` = 'run'")
    assert json.loads(whole.data.params["plan.stages"]) == STAGES
    steps = client.search_runs([experiment], "tags.`lmmpress.kind` = 'step'")
    assert {(one.data.tags["lmmpress.step"], one.data.tags["lmmpress.stage"]) for one in steps} == {
        ("block/0", "block"),
        ("ffn/0", "ffn"),
        ("block-2/0", "block-2"),
    }


def test_plan_shows_the_sizes_after_each(raw: dict[str, Any], tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(raw), "utf-8")
    sizes = json.loads(run("plan", plan, "--json"))
    assert [(size["stage"], size["index"], size["tower"]) for size in sizes[1:]] == STEPS
    depths = [size["widths"]["language.block"] for size in sizes if "language.block" in size["widths"]]
    assert depths == [depths[0], depths[0] - 1, depths[0] - 2]
    changed = json.loads(run("plan", plan, "--json", "--set", "stages.block-2.tower=vision"))
    assert [size["tower"] for size in changed[1:]] == ["language", "vision", "vision"]
