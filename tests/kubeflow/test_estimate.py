"""The estimated size of a run's object in Argo, against recorded runs; and the granularity that follows from it."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.compiled import documents
from support.paths import ROOT
from support.plans import PLAN, PROFILE

from lmmpress.errors import UserError
from lmmpress.kubeflow.argo_nodes import nodes_of
from lmmpress.kubeflow.compile import Granularity, compile_plan
from lmmpress.kubeflow.estimate import LIMIT, SAFE, estimate
from lmmpress.kubeflow.fitting import fit, size_of
from lmmpress.plan import Plan, parse_plan
from lmmpress.tasks.cluster_profile import Profile
from lmmpress.tasks.granularity import Choice

FULL = Profile.model_validate(PROFILE)


RECORDED = ROOT / "tests" / "kubeflow" / "recorded_api"
"""Sizes of the nodes of real runs (Kubeflow Pipelines 2.17.0, Argo 4.0.8), of this profile and plan. Two kinds of tasks
had names of their own then, `steps-of-block` and `block-due`."""
TRIED = {
    "image": "docker.io/library/lmmpress-recent:0.1.0-cpu",
    "kubeflow": {"host": "http://10.96.147.230:8888", "namespace": "kubeflow"},
    "secrets": {"store": {"name": "lmmpress-store"}},
    "environment": {"AWS_ENDPOINT_URL": "http://s3.storage:9000", "AWS_REGION": "us-east-1"},
    "defaults": {"gpus": 0, "requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "3Gi"}},
}
TRIED_PLAN = {
    "model": "s3://lmmpress/tiny",
    "data": "s3://lmmpress/ads",
    "store": "s3://lmmpress/store",
    "tolerance": {"alpha": 0.9, "allow_zero": True},
    "importance": {"accumulation": "batch", "batch_size": 4},
    "stages": {"block": {"step": 1, "max": 2}, "ffn": {"step": 16, "max": 16}},
    "distillation": {"epochs": 1, "learning_rate": 0.001, "batch_size": 8},
    "evaluation": {"samples": 4, "batch_size": 2, "latency_samples": 2, "seconds": 2},
}


def plan_of(blocks: int) -> Plan:
    return parse_plan(PLAN | {"stages": {"block": {"step": 1, "max": blocks}}})


def compiled(tmp_path: Path, granularity: str, profile: Any) -> tuple[Any, Any]:
    target = tmp_path / f"{granularity}.yaml"
    compile_plan(parse_plan(PLAN), "antgmm", Profile.model_validate(profile), Granularity(granularity), target)
    spec, *platform = documents(target)
    return spec, platform[0] if platform else {}


@pytest.mark.parametrize("granularity", ["step", "stage"])
def test_the_estimate_is_within_a_fifth_of_a_recorded_run(tmp_path: Path, granularity: str) -> None:
    recorded = json.loads((RECORDED / f"sizes_by_{granularity}.json").read_text("utf-8"))
    target = tmp_path / "pipeline.yaml"
    compile_plan(parse_plan(TRIED_PLAN), "tiny", Profile.model_validate(TRIED), Granularity(granularity), target)
    spec, platform = documents(target)
    size = estimate(spec, platform, recorded["steps"], retried=0)
    assert size.nodes == len(recorded["nodes"])
    for part in {"specification", "statuses", "compressed"} & recorded.keys():  # Argo compresses large ones only
        assert getattr(size, part) == pytest.approx(recorded[part], rel=0.2), part
    ours = {node["name"].replace("lmm-xxxxx", "W"): node for node in nodes_of(spec, platform, recorded["steps"])}
    for name, bytes_recorded in recorded["nodes"].items():
        known = re.sub(r"steps-of-\w+?(?=[-.(]|$)", "steps", re.sub(r"\b(block|ffn)-due", "due", name))
        if bytes_recorded > 1000:
            assert len(json.dumps(ours[known])) == pytest.approx(bytes_recorded, rel=0.3), name


def test_the_estimate_grows_with_steps_retries_and_settings(tmp_path: Path) -> None:
    full = compiled(tmp_path, "step", PROFILE)
    sizes = [estimate(*full, dict.fromkeys(PLAN["stages"], count)) for count in (1, 4, 8, 9, 40, 4000)]
    for smaller, larger in itertools.pairwise(sizes):
        assert smaller.raw < larger.raw
        assert smaller.stored < larger.stored
        assert smaller.nodes < larger.nodes
    each = (sizes[-1].statuses - sizes[1].statuses) / (4 * (4000 - 4))
    assert each == pytest.approx((sizes[2].statuses - sizes[1].statuses) / 16, rel=0.02)
    again = estimate(*full, dict.fromkeys(PLAN["stages"], 4), retried=0.5)
    assert sizes[1].raw < again.raw < 1.2 * sizes[1].raw
    bare = compiled(tmp_path, "step", {})
    assert estimate(*bare, dict.fromkeys(PLAN["stages"], 4)).raw < sizes[1].raw


def test_both_limits_are_told_apart() -> None:
    size = size_of(plan_of(30), FULL, Granularity.step)
    assert size.raw > LIMIT > size.stored


def test_auto_takes_steps_while_the_pages_show_all_of_them() -> None:
    small = fit(plan_of(1), FULL)
    assert (small.granularity, small.warning) == (Granularity.step, None)
    assert small.said.startswith("by step: the run's object in Argo grows to 0.")
    large = fit(plan_of(30), FULL)
    assert large.granularity == Granularity.stage
    assert large.said.startswith("by stage: by step the run's object in Argo may grow to ")
    assert "Kubeflow's pages and its API show nothing new" in large.said


def test_a_warm_run_is_made_by_stage_because_a_step_cuts_along_one_axis() -> None:
    warm = plan_of(1).model_copy(update={"start_from": "previous"})
    assert fit(warm, FULL).granularity == fit(warm, FULL, Choice.stage).granularity == Granularity.stage
    with pytest.raises(UserError, match="a pipeline by step makes no jumps; take --granularity stage"):
        fit(warm, FULL, Choice.step)


def test_who_asks_for_steps_is_told_when_the_pages_stand_still_and_refused_where_argo_gives_up() -> None:
    asked = fit(plan_of(30), FULL, Choice.step)
    assert asked.granularity == Granularity.step
    assert asked.warning
    assert "--granularity stage avoids that" in asked.warning
    assert size_of(plan_of(400), FULL, Granularity.step).stored > SAFE * LIMIT
    with pytest.raises(UserError, match="more than 70% of the 1 MiB at which Argo gives up; --granularity stage"):
        fit(plan_of(400), FULL, Choice.step)
    assert fit(plan_of(400), FULL, Choice.stage).granularity == Granularity.stage
