"""A training is begun once, followed to its end, and said why it waits or has failed."""

from typing import Any

import pytest
from support.argo_pods import PODS
from support.kubernetes_api import Kubernetes, listed, refusal
from support.trainings import MANIFEST, NAME, WORKLOADS, node_pod, show, train_job

from lmmpress.errors import AwayError, UserError
from lmmpress.host.patience import PATIENCE
from lmmpress.pods.cluster_reader import Cluster
from lmmpress.pods.trainings import Training

TRAINJOBS = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/team-ads/trainjobs"
LOG = "2026-01-01T10:00:01.1Z distil 1/9\n2026-01-01T10:00:01.12Z distil 2/9\n"


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmmpress.pods.trainings.PAUSE", 0.0)


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def training(cluster: Cluster, told: list[str]) -> Training:
    return Training(cluster, "team-ads", MANIFEST, told.append, told.append)


def unfolds(
    kubernetes: Kubernetes, *states: dict[str, Any], pods: tuple[dict[str, Any], ...] = (), log: str = ""
) -> None:
    """Let a TrainJob, once it is there, come to one state after the other: the next one at each look at its pods."""
    show(kubernetes, *pods, log=log)
    following = iter(states[1:])

    def look(_: str | None) -> dict[str, Any]:
        if NAME in kubernetes.jobs:
            kubernetes.jobs[NAME] = next(following, states[-1])
        return listed(*pods)

    def begin(_: dict[str, Any]) -> None:
        kubernetes.jobs[NAME] = states[0]

    kubernetes.on_job = begin
    kubernetes.answers[PODS] = look


def asked(kubernetes: Kubernetes, method: str) -> list[str]:
    return [path for how, path in kubernetes.asked if how == method and "trainjobs" in path]


def test_a_training_is_begun_followed_and_removed(kubernetes: Kubernetes, training: Training, told: list[str]) -> None:
    unfolds(kubernetes, train_job(), train_job(), train_job("Complete"), pods=(node_pod(0), node_pod(1)), log=LOG)
    training.run()
    assert told == [f"TrainJob {NAME} of team-ads distils on 2 nodes", "distil 1/9", "distil 2/9"], "each line once"
    assert asked(kubernetes, "POST") == [TRAINJOBS]
    assert not kubernetes.jobs


def test_a_training_that_is_there_is_followed(kubernetes: Kubernetes, training: Training) -> None:
    unfolds(kubernetes, train_job(), train_job("Complete"), pods=(node_pod(0),))
    kubernetes.jobs[NAME] = train_job()
    training.run()
    assert not asked(kubernetes, "POST")


@pytest.mark.parametrize("end", ["Failed", "Complete"])
def test_a_training_that_ended_without_a_result_is_made_again(
    kubernetes: Kubernetes, training: Training, end: str
) -> None:
    unfolds(kubernetes, train_job(), train_job("Complete"), pods=(node_pod(0),))
    kubernetes.jobs[NAME] = train_job(end)
    training.run()
    assert asked(kubernetes, "POST") == [TRAINJOBS]


@pytest.mark.parametrize(
    ("pods", "kind", "said"),
    [
        ((node_pod(0, "Failed", exitCode=1), node_pod(1, "Failed", exitCode=137)), AwayError, "exit code 1"),
        ((node_pod(0, "Failed", exitCode=137, reason="OOMKilled"),), AwayError, "OOMKilled"),
        ((node_pod(0), node_pod(1, "Failed", exitCode=2)), UserError, "no rows to distil"),
        ((), AwayError, "too many restarts"),
    ],
)
def test_a_failure_is_told_by_the_pod_that_failed_first(
    kubernetes: Kubernetes, training: Training, pods: Any, kind: type[UserError], said: str
) -> None:
    failed = train_job("Failed", message="too many restarts")
    unfolds(kubernetes, train_job(), failed, pods=pods, log="error: no rows to distil\n")
    with pytest.raises(UserError, match=said) as error:
        training.run()
    assert type(error.value) is kind, "a fault of the input is not tried again"
    assert "\n" not in str(error.value)
    assert NAME in kubernetes.jobs, "for who looks for the reason"


def test_a_training_that_begins_again_is_told(kubernetes: Kubernetes, training: Training, told: list[str]) -> None:
    unfolds(kubernetes, train_job(), train_job(), train_job("Complete"), pods=(node_pod(0),), log=LOG)
    look, names = kubernetes.answers[PODS], iter(["a", "a", "b", "b"])

    def renamed(after: str | None) -> dict[str, Any]:
        found: dict[str, Any] = look(after)
        found["items"][0]["metadata"]["name"] = f"{NAME}-node-0-0-{next(names, 'b')}"
        return found

    kubernetes.answers[PODS] = renamed
    training.run()
    assert [line for line in told if "begins again: a node has failed, or was taken away" in line] == told[1:]


def test_what_a_queue_says_is_told_once(kubernetes: Kubernetes, training: Training, told: list[str]) -> None:
    waits = {"type": "QuotaReserved", "status": "False", "message": "insufficient quota for nvidia.com/gpu, 16 > 8"}
    workload = {"metadata": {"ownerReferences": [{"uid": "u-1"}]}, "status": {"conditions": [waits]}}
    kubernetes.answers[WORKLOADS] = listed(workload)
    states = train_job("Suspended"), train_job("Suspended"), train_job(), train_job("Complete")
    unfolds(kubernetes, *states, pods=())
    training.run()
    assert len(told) == 2
    assert "waits: its queue says: insufficient quota for nvidia.com/gpu, 16 > 8; kubectl get workloads" in told[1]


def test_a_queue_that_we_may_not_see_is_told_as_such(
    kubernetes: Kubernetes, training: Training, told: list[str]
) -> None:
    kubernetes.answers[WORKLOADS] = refusal(403, "forbidden")
    unfolds(kubernetes, train_job("Suspended"), train_job("Complete"))
    training.run()
    assert "it is suspended, as in a queue" in told[1]


@pytest.mark.parametrize(
    ("status", "said"), [(404, "install Kubeflow Trainer"), (403, "lmmpress doctor"), (422, "spec.runtimePatches")]
)
def test_a_training_that_is_refused_is_an_error_with_its_mend(
    kubernetes: Kubernetes, training: Training, status: int, said: str
) -> None:
    kubernetes.answers[TRAINJOBS] = refusal(status, "unknown field spec.runtimePatches")
    with pytest.raises(UserError, match=said) as error:
        training.run()
    assert not isinstance(error.value, AwayError)


def test_a_training_that_somebody_removes_is_tried_again(kubernetes: Kubernetes, training: Training) -> None:
    def gone(_: str | None) -> dict[str, Any]:
        kubernetes.jobs.clear()
        return listed(node_pod(0))

    unfolds(kubernetes, train_job(), pods=(node_pod(0),))
    kubernetes.answers[PODS] = gone
    with pytest.raises(AwayError, match="was removed while it ran"):
        training.run()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATIENCE, "0.2s")


def test_an_api_that_is_away_for_a_moment_is_waited_for(kubernetes: Kubernetes, training: Training) -> None:
    answers = iter([refusal(503, "no leader"), refusal(429, "slow down")])
    unfolds(kubernetes, train_job(), train_job("Complete"), pods=(node_pod(0),))
    look = kubernetes.answers[PODS]
    kubernetes.answers[PODS] = lambda after: next(answers, None) or look(after)
    training.run()
    assert not kubernetes.jobs


@pytest.mark.usefixtures("impatient")
def test_an_api_that_stays_away_ends_the_try_and_leaves_the_training(
    kubernetes: Kubernetes, training: Training
) -> None:
    unfolds(kubernetes, train_job(), pods=(node_pod(0),))
    kubernetes.answers[PODS] = refusal(503, "no leader")
    with pytest.raises(AwayError, match="cannot be followed: HTTP 503: no leader"):
        training.run()
    assert NAME in kubernetes.jobs
