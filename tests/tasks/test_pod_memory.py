"""Warnings of pods whose memory is below what their part needs."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.cli import refused, run

from lmmpress.plan import Plan, parse_plan
from lmmpress.tasks.cluster_profile import Profile
from lmmpress.tasks.granularity import Granularity
from lmmpress.tasks.pod_memory import bytes_of, memory_warnings

STEP, STAGE = Granularity.step, Granularity.stage
PAPER = {"stages": {"ffn": {"step": 768, "max": 768}}, "towers": ["language"]}


@pytest.fixture
def paper(raw_plan: dict[str, Any]) -> Plan:
    """A plan for the shape of the paper, of which this machine has the config."""
    from lmmpress.presets import preset

    return parse_plan(preset("paper", with_data=False) | PAPER)


def profile_of(**settings: Any) -> Profile:
    return Profile.model_validate(settings)


def test_nothing_is_said_of_pods_without_a_limit(paper: Plan) -> None:
    assert memory_warnings(paper, Profile(), STEP) == []


def test_each_component_of_the_pipeline_has_a_line(paper: Plan) -> None:
    small = profile_of(defaults={"limits": {"memory": "32Mi"}})
    by_step = [line.partition(":")[0] for line in memory_warnings(paper, small, STEP)]
    assert by_step == [
        "prepare",
        "steps",
        "due",
        "importance",
        "ffn_prune",
        "distill",
        "evaluate",
        "gate",
        "publish",
    ]
    by_stage = [line.partition(":")[0] for line in memory_warnings(paper, small, STAGE)]
    assert by_stage == ["prepare", "stage", "publish"]
    comparing = memory_warnings(paper.model_copy(update={"compare": True}), small, STAGE)
    assert comparing[-1].startswith("compare: limits.memory is 32Mi")
    assert not any("\n" in line for line in memory_warnings(paper, small, STEP))


def test_the_limit_counts_and_without_one_the_request(paper: Plan) -> None:
    gate = {"requests": {"memory": "32Mi"}}
    (line,) = memory_warnings(paper, profile_of(components={"gate": gate}), STEP)
    assert line.startswith("gate: requests.memory is 32Mi, and its pods need 0.")
    gate["limits"] = {"memory": "1Gi"}
    assert memory_warnings(paper, profile_of(components={"gate": gate}), STEP) == []


def test_a_pod_with_gpus_needs_less_of_its_machine_and_several_more(paper: Plan) -> None:
    def warned(gpus: int) -> list[str]:
        given = {"gpus": gpus, "limits": {"memory": "70Gi"}}
        return memory_warnings(paper, profile_of(components={"distill": given}), STEP)

    assert [len(warned(gpus)) for gpus in (0, 1, 8)] == [1, 0, 1]


@pytest.mark.parametrize("model", ["/nowhere", "models:/ads/1", "s3://no-such-bucket/model"])
def test_if_the_model_is_out_of_reach_only_the_base_counts(
    paper: Plan, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMMPRESS_PATIENCE", "1s")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    there = paper.model_copy(update={"model": model})
    limits = {"distill": {"gpus": 0, "limits": {"memory": "1Gi"}}, "gate": {"limits": {"memory": "32Mi"}}}
    (line,) = memory_warnings(there, profile_of(components=limits), STEP)
    assert line.startswith("gate: ")


@pytest.mark.parametrize(("text", "count"), [("1Gi", 1 << 30), ("2G", 2e9), ("1500m", 1.5), ("7", 7), ("0.5Ki", 512)])
def test_quantities(text: str, count: float) -> None:
    assert bytes_of(text) == count


def test_compile_and_submit_warn_and_strict_refuses(tmp_path: Path) -> None:
    cluster, target = tmp_path / "cluster.yaml", tmp_path / "pipeline.yaml"
    digest = "lmmpress@sha256:" + 64 * "0"
    cluster.write_text(json.dumps({"image": digest, "components": {"gate": {"limits": {"memory": "32Mi"}}}}), "utf-8")
    said = ["--sample", "--granularity", "step", "--cluster", str(cluster), "--json"]
    warnings = json.loads(run("compile", *said, "-o", str(target)))["warnings"]
    assert [line for line in warnings if line.startswith("gate: limits.memory is 32Mi")]
    target.unlink()
    assert "limits.memory is 32Mi" in refused("compile", *said, "--strict", "-o", str(target))
    assert not target.exists()
    assert "limits.memory is 32Mi" in refused("submit", *said, "--strict", "--no-checks")
