"""Runs on the cluster of KUBECONFIG, disturbed and not, come to what `lmmpress run` comes to."""

import re
from typing import Any

import pytest
from support.cluster.disturbances import BRIEF
from support.cluster.runs import Run, compared, decided

pytestmark = pytest.mark.cluster


def test_the_last_step_is_rolled_back(alone: list[dict[str, Any]]) -> None:
    """The plan's tolerance is tight enough for it; otherwise the runs below would prove less."""
    assert [one["decision"] for one in alone] == ["accepted", "accepted", "rolled back"]


def test_by_stage_as_lmmpress_run(engine: str, proof: Any, by_stage: dict[str, Run], alone: list[Any]) -> None:
    run = by_stage[engine]
    assert succeeded(run)
    assert decided(proof.helpers, run.store) == alone


def test_the_result_is_compared_with_the_original(engine: str, proof: Any, by_stage: Any, disturbed: Any) -> None:
    for run in (by_stage[engine], disturbed[0][engine]):
        assert [one.part for one in run.pods if one.part][-1] == "compare"
        found = compared(proof.helpers, run.store)
        assert found["compared"] == found["result"]
        assert found["turns"]


def test_the_chart_was_upgraded_during_a_run(proof: Any, by_stage: dict[str, Run]) -> None:
    assert proof.first.values()["mlflow"]["podAnnotations"] == {"upgraded": "during a run"}


def test_by_step_as_lmmpress_run_whatever_befalls_it(engine: str, proof: Any, disturbed: Any, alone: list[Any]) -> None:
    run = disturbed[0][engine]
    assert succeeded(run)
    assert decided(proof.helpers, run.store) == alone


def test_a_pod_of_each_part_was_deleted(engine: str, disturbed: Any) -> None:
    runs, _ = disturbed
    parts = {one.part for one in runs[engine].pods if one.part}
    deleted = {one.part for one in runs[engine].pods if one.deleted}
    assert {"prepare", "importance", "block_prune", "ffn_prune", "distill", "evaluate"} <= deleted
    assert parts - deleted <= BRIEF, "only what ends within seconds gets away"


def test_servers_and_controller_were_away(proof: Any, disturbed: Any) -> None:
    _, disturbances = disturbed
    assert disturbances.failed == []
    done = [one["what"] for one in disturbances.done]
    assert done.count("controller restarted") == len(proof.installed)
    assert {"MLflow away for 300 s", "store away for 120 s"} <= set(done)


def test_the_store_was_away_at_every_part(engine: str, proof: Any, storeless: Any, alone: list[Any]) -> None:
    runs, disturbances = storeless
    run = runs[engine]
    assert succeeded(run)
    assert decided(proof.helpers, run.store) == alone
    assert disturbances.failed == []
    parts, outlived = {one.part for one in run.pods if one.part}, disturbances.outlived(run)
    assert {"prepare", "importance", "block_prune", "ffn_prune", "distill", "evaluate"} <= outlived
    assert parts - outlived <= BRIEF, "only what ends within seconds gets away"


def test_a_cancelled_run_is_carried_on(proof: Any, carried_on: tuple[Run, Run], alone: list[Any]) -> None:
    cancelled, run = carried_on
    assert not succeeded(cancelled)
    assert succeeded(run)
    assert decided(proof.helpers, run.store) == alone


def test_mlflow_has_every_run_with_its_steps(proof: Any, by_stage: dict[str, Run], disturbed: Any) -> None:
    """What MLflow missed while it was away, was recorded later."""
    names = [run.experiment for run in [*by_stage.values(), *disturbed[0].values()]]
    found = proof.first.mlflow(_LINEAGE.replace("NAMES", repr(names)))
    assert {name: one["steps"] for name, one in found.items()} == dict.fromkeys(names, 3)
    assert {name: one["state"] for name, one in found.items()} == dict.fromkeys(names, "FINISHED")


def test_gate_and_due_ask_for_no_picture(engine: str, results: dict[str, Any]) -> None:
    parts = results["runs"][f"{engine} by step"]["parts"]
    for part in ("gate", "due", "publish"):
        assert parts[part]["requests"] > 0, f"requests of {part} are not seen"
        assert parts[part]["requests_for_pictures"] == 0, part
    assert parts["evaluate"]["requests_for_pictures"] > 0, "pictures are not seen at all"


def test_a_gate_pod_takes_less_than_five_seconds(engine: str, results: dict[str, Any]) -> None:
    assert results["runs"][f"{engine} by step"]["parts"]["gate"]["median_seconds"] < 5


def test_a_workflow_stays_far_below_argos_limit(engine: str, results: dict[str, Any]) -> None:
    sizes = results["runs"][f"{engine} by step"]["object"]
    assert 0 < sizes["nodes_compressed"] + sizes["specification"] < 0.7 * (1 << 20)


def succeeded(run: Run) -> bool:
    return re.search(r"^succeeded$", run.output, re.MULTILINE) is not None


_LINEAGE = """
import json
from mlflow import MlflowClient

client, found = MlflowClient("http://127.0.0.1:5000"), {}
for name in NAMES:
    experiment = client.get_experiment_by_name(name)
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    nested = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    found[name] = {
        "steps": sum("lmmpress.step" in run.data.tags for run in nested),
        "state": parents[0].info.status if len(parents) == 1 else f"{len(parents)} runs",
    }
print(json.dumps(found))
"""
