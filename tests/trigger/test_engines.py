"""Kubeflow and Argo as engines of the trigger, over real HTTP: named, listed, followed, ended."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.argo_api import ArgoApi
from support.kubeflow import Kubeflow
from support.plans import PLAN, PROFILE

from lmmpress.errors import UserError
from lmmpress.plan import parse_plan
from lmmpress.tasks.cluster_profile import Profile
from lmmpress.tasks.granularity import Choice
from lmmpress.trigger.engines.argo import ArgoEngine
from lmmpress.trigger.engines.interface import Order, RefusedError
from lmmpress.trigger.engines.kubeflow import KubeflowEngine
from lmmpress.trigger.question import Question

QUESTION = Question("AntGMM", "8", "d" * 64, None, "p" * 64, "kubeflow", "usual")


def order(profile: dict[str, object], **changes: object) -> Order:
    return Order(
        run=QUESTION.run_name(1),
        key=QUESTION.key,
        attempt=1,
        plan=parse_plan(PLAN | {"model": "models:/AntGMM/8"} | changes),
        compressed="AntGMM-compressed",
        profile=Profile.model_validate(PROFILE | profile),
        granularity=Choice.stage,
        tracking="http://mlflow:5000",
    )


class TestKubeflow:
    @pytest.fixture
    def kubeflow(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Kubeflow]:
        monkeypatch.setenv("HOME", str(tmp_path))  # the client notes its namespace there
        monkeypatch.delenv("KUBECONFIG", raising=False)
        before = socket.getdefaulttimeout()
        server = Kubeflow([])
        server.keeps = True
        yield server
        server.stop()
        socket.setdefaulttimeout(before)

    @pytest.fixture
    def asked(self, kubeflow: Kubeflow) -> Order:
        return order({"kubeflow": {"host": kubeflow.host, "namespace": "team-ads"}})

    def test_a_run_has_the_name_of_its_question(self, kubeflow: Kubeflow, asked: Order) -> None:
        engine = KubeflowEngine()
        assert engine.find(asked) == []
        made = engine.create(asked)
        assert kubeflow.submitted[0]["display_name"] == asked.run == f"lmmpress-antgmm-8-{QUESTION.key[-40:-28]}-1"
        assert engine.find(asked) == [made]
        parameters = kubeflow.submitted[0]["runtime_config"]["parameters"]
        assert (parameters["model"], parameters["name"]) == ("models:/AntGMM/8", "AntGMM-compressed")

    def test_a_run_whose_answer_was_lost_is_in_the_list(self, kubeflow: Kubeflow, asked: Order) -> None:
        kubeflow.mute = True
        with pytest.raises(UserError) as caught:
            KubeflowEngine().create(asked)
        assert not isinstance(caught.value, RefusedError), "it may have been made"
        assert [one.id for one in KubeflowEngine().find(asked)] == ["r-0"]

    def test_runs_of_other_names_do_not_count(self, kubeflow: Kubeflow, asked: Order) -> None:
        kubeflow.runs.append({"run_id": "r-9", "display_name": "another", "state": "RUNNING"})
        assert KubeflowEngine().find(asked) == []

    @pytest.mark.parametrize(
        ("state", "phase"),
        [
            ("PENDING", "waiting"),
            ("RUNNING", "running"),
            ("CANCELING", "running"),
            ("SUCCEEDED", "succeeded"),
            ("FAILED", "failed"),
            ("CANCELED", "cancelled"),
        ],
    )
    def test_its_state_is_followed(self, kubeflow: Kubeflow, asked: Order, state: str, phase: str) -> None:
        engine = KubeflowEngine()
        made = engine.create(asked)
        kubeflow.runs[0]["state"] = state
        assert engine.look(asked, made).phase == phase
        kubeflow.runs.clear()
        assert engine.look(asked, made).phase == "gone"

    def test_it_is_ended_once(self, kubeflow: Kubeflow, asked: Order) -> None:
        engine = KubeflowEngine()
        made = engine.create(asked)
        engine.cancel(asked, made)
        engine.cancel(asked, made)
        assert kubeflow.terminated == [made.id]
        assert engine.look(asked, made).phase == "cancelled"

    def test_what_it_will_never_take_is_told_from_what_may_pass(self, kubeflow: Kubeflow, asked: Order) -> None:
        with pytest.raises(RefusedError, match="data is /nowhere, which pods cannot reach"):
            KubeflowEngine().create(order({"kubeflow": {"host": kubeflow.host}}, data="/nowhere"))
        kubeflow.stop()
        with pytest.raises(UserError, match="cannot be reached") as caught:
            KubeflowEngine().create(asked)
        assert not isinstance(caught.value, RefusedError)

    def test_it_says_whether_it_can_be_reached(self, kubeflow: Kubeflow, asked: Order) -> None:
        said = KubeflowEngine().reach(asked)
        assert said.startswith(f"Kubeflow at {kubeflow.host} lists experiments and runs for this identity; by stage")
        asked_for = [path.partition("?")[0] for path in kubeflow.asked]
        assert {"/apis/v2beta1/experiments", "/apis/v2beta1/runs"} <= set(asked_for)
        assert not kubeflow.submitted, "nothing is made"

    def test_an_identity_that_may_not_read_is_refused_in_one_line(
        self, kubeflow: Kubeflow, asked: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "token").write_text("of the trigger", "utf-8")
        monkeypatch.setenv("KFP_TOKEN_FILE", str(tmp_path / "token"))
        kubeflow.faults = [403]
        with pytest.raises(UserError, match=r"refuses access \(HTTP 403\): the token in KFP_TOKEN_FILE is not taken"):
            KubeflowEngine().reach(asked)


class TestArgo:
    @pytest.fixture
    def argo(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ArgoApi]:
        server = ArgoApi()
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path)))
        yield server
        server.stop()

    def test_a_workflow_has_the_name_of_its_question_and_is_made_once(self, argo: ArgoApi) -> None:
        engine, asked = ArgoEngine(), order({"engine": "argo"})
        assert engine.find(asked) == []
        made = engine.create(asked)
        assert made.id == asked.run
        assert engine.create(asked).id == asked.run, "as where the answer to the first request was lost"
        assert list(argo.workflows) == [asked.run]
        assert engine.find(asked) == [made]

    @pytest.mark.parametrize(
        ("status", "phase"),
        [
            ({}, "waiting"),
            ({"phase": "Pending"}, "waiting"),
            ({"phase": "Running"}, "running"),
            ({"phase": "Succeeded"}, "succeeded"),
            ({"phase": "Failed", "message": "OOMKilled"}, "failed"),
            ({"phase": "Error"}, "failed"),
        ],
    )
    def test_its_phase_is_followed(self, argo: ArgoApi, status: dict[str, str], phase: str) -> None:
        engine, asked = ArgoEngine(), order({"engine": "argo"})
        made = engine.create(asked)
        argo.workflows[asked.run]["status"] = status
        seen = engine.look(asked, made)
        assert (seen.phase, seen.said) == (phase, status.get("message", ""))
        argo.workflows.clear()
        assert engine.look(asked, made).phase == "gone"

    def test_it_is_ended_while_it_changes(self, argo: ArgoApi) -> None:
        engine, asked = ArgoEngine(), order({"engine": "argo"})
        made = engine.create(asked)
        argo.workflows[asked.run]["status"] = {"phase": "Running"}
        argo.conflicts = 2
        engine.cancel(asked, made)
        workflow = argo.workflows[asked.run]
        assert workflow["spec"]["shutdown"] == "Terminate"
        workflow["status"] = {"phase": "Failed", "message": "Stopped with strategy 'Terminate'"}
        assert engine.look(asked, made).phase == "cancelled"
        engine.cancel(asked, made)

    def test_what_it_will_never_take_is_told_from_what_may_pass(self, argo: ArgoApi) -> None:
        with pytest.raises(RefusedError, match="data is /nowhere, which pods cannot reach"):
            ArgoEngine().create(order({}, data="/nowhere"))
        argo.invalid = True
        with pytest.raises(RefusedError, match="Workflow is invalid"):
            ArgoEngine().create(order({}))
        argo.installed = False
        with pytest.raises(UserError, match="knows no workflows") as caught:
            ArgoEngine().create(order({}))
        assert not isinstance(caught.value, RefusedError)

    def test_an_api_that_is_away_is_one_line(self, argo: ArgoApi) -> None:
        argo.stop()
        with pytest.raises(UserError, match="no answer"):
            ArgoEngine().find(order({}))

    def test_it_says_whether_it_can_be_reached(self, argo: ArgoApi) -> None:
        said = ArgoEngine().reach(order({}))
        assert said.startswith("Argo 4.0 in namespace team-ads of http://127.0.0.1:")
        argo.shows = False
        said = ArgoEngine().reach(order({}))
        assert said.startswith("Argo, whose controller is not seen, in namespace team-ads of http://127.0.0.1:")
        argo.denied = {"create"}
        with pytest.raises(UserError, match="may not create workflowtaskresults"):
            ArgoEngine().reach(order({}))
