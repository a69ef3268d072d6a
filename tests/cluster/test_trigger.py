"""The trigger on the cluster of KUBECONFIG: a release in MLflow becomes a run, a version in service, and a lineage."""

import json
from typing import Any

import pytest
from support.cluster.kubectl import wait_for
from support.cluster.triggers import Triggered

pytestmark = pytest.mark.cluster


def test_a_release_is_compressed_once_although_the_servers_are_killed(
    engine: str, triggered: dict[str, Triggered]
) -> None:
    """They were killed as soon as the run was submitted."""
    mine = triggered[engine]
    (claim,) = [one for one in mine.claims() if one["question"]["plan_name"] == "usual"]
    assert (claim["state"], claim["attempt"]) == ("succeeded", 1), claim["events"]
    assert len(mine.workflows(claim)) == 1
    assert claim["run"] in [one["run"] for one in mine.ask(f"claims?model={mine.model}")["claims"]]


def test_mlflow_itself_tells_of_the_release(proof: Any, triggered: dict[str, Triggered]) -> None:
    mine = triggered[proof.installed[0].name]
    assert mine.claim("succeeded")["cause"] == "webhook"


def test_the_version_is_put_into_service_by_the_comparison_of_its_run(
    engine: str, triggered: dict[str, Triggered]
) -> None:
    mine = triggered[engine]
    mine.lmmpress("promote", mine.compressed, "1", "--why", "the proof")
    (told,) = json.loads(mine.lmmpress("serving", "--json"))
    assert (told["compressed"], told["serving"]["version"]) == (mine.compressed, "1")


def test_from_the_version_in_service_everything_leads_back(engine: str, triggered: dict[str, Triggered]) -> None:
    mine = triggered[engine]
    found = json.loads(mine.lmmpress("lineage", mine.compressed, "--json"))
    assert found["gaps"] == []
    claim = mine.claim("succeeded")
    assert found["claim"]["key"] == claim["key"]
    assert [one for one in found["comparisons"] if claim["run"] in one]
    assert (found["serving"]["version"], found["serving"]["why"]) == ("1", "the proof")


def test_the_page_shows_it(engine: str, triggered: dict[str, Triggered]) -> None:
    page = triggered[engine].page()
    assert "ann, operator" in page
    assert "compressed version 1, from version 1" in page


def test_a_run_goes_on_once_it_is_approved_and_ends_at_its_engine_when_it_is_cancelled(
    engine: str, triggered: dict[str, Triggered]
) -> None:
    mine = triggered[engine]
    mine.lmmpress("fire", mine.model, "--plan", "other", "--why", "to be cancelled")
    begun = mine.claim("running", plan="other")
    if engine == "argo":  # an approval that is given before that is found by the task that would suspend it
        wait_for("the suspended workflow", lambda: mine.is_suspended(begun), 600)
    assert "stage block is approved by ann" in (said := mine.approve("block"))
    assert engine != "argo" or said.endswith("goes on")
    (workflow,) = mine.workflows(begun)
    assert workflow["status"]["phase"] == "Running"
    wait_for("the next stage", lambda: mine.stage_began("ffn", begun), 300)
    mine.lmmpress("cancel", begun["run"], "--why", "was a trial")
    assert mine.claim("cancelled", plan="other")["run"] == begun["run"]
    (workflow,) = mine.workflows(begun)
    assert workflow["status"]["phase"] not in ("Pending", "Running", "Succeeded")


def test_its_helm_test_passes(engine: str, triggered: dict[str, Triggered]) -> None:
    """With what `lmmpress trigger check` looks at: the store, MLflow, the model, its plans, and the engine."""
    triggered[engine].release.test()
