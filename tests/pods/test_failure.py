"""Why a run has failed: its pod, the reason, and the lines of its log that are ours."""

from typing import Any

import pytest
from support.argo_pods import PODS, argo_pod, done, runs, workflow
from support.kubernetes_api import Kubernetes, Raw

from lmmpress.pods.cluster_reader import Cluster
from lmmpress.pods.failure import why_failed
from lmmpress.pods.waiting import Place

PLACE = Place("team-ads", "pipeline/runid=r-1", "kubeflow")
LOG = b"""I1129 09:00:00.1 1 launcher_v2.go:186] something of Kubeflow's
[KFP Executor 2026-01-01 10:00:00,000 INFO]: Got executor_input:
{
    "inputs": {
        "error: ": 1
    }
}
distilling 4 of 10
error: /data/ads: row 3 has no answer; password=hush \x1b[31m
time="2026-01-01T10:00:00" level=info msg="sub-process exited"
F1129 09:00:01.2 1 main.go:60] failed to execute component: exit status 2
"""


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        (done("p", "distill", "block", exitCode=137, reason="OOMKilled"), "OOMKilled, its memory limit is 3Gi"),
        (
            argo_pod("p", "distill", "block", "Failed", reason="Evicted", message="low on resource: memory"),
            "Evicted: low on resource: memory",
        ),
        (argo_pod("p", "distill", "block", "Failed", reason="DeadlineExceeded"), "DeadlineExceeded"),
        (done("p", "distill", "block", exitCode=1, reason="Error"), "exit code 1"),
        (done("p", "distill", "block", exitCode=143, reason="Error"), "exit code 143, asked to end"),
    ],
)
def test_the_pod_and_its_reason_are_told(
    kubernetes: Kubernetes, cluster: Cluster, pod: dict[str, Any], reason: str
) -> None:
    runs(kubernetes, done("earlier", "prepare"), pod)
    assert str(why_failed(cluster, PLACE)) == f"distill of block failed in pod p: {reason}"


def test_only_lines_that_are_ours_are_shown_and_the_exit_code_is_the_tasks_own(
    kubernetes: Kubernetes, cluster: Cluster
) -> None:
    runs(kubernetes, done("p", "distill", "block", exitCode=1, reason="Error"))
    kubernetes.answers[f"{PODS}/p/log"] = Raw(200, LOG, "text/plain")
    found = why_failed(cluster, PLACE)
    assert found is not None
    assert found.reason == "exit code 2, a fault of the input or of the environment"
    (line,) = found.lines
    assert line.startswith("error: /data/ads: row 3 has no answer;")
    assert "hush" not in line
    assert "\x1b" not in line


def test_of_a_log_of_objects_the_errors_are_shown_in_words(kubernetes: Kubernetes, cluster: Cluster) -> None:
    at = '{"time": "2026-11-30T05:20:44.526Z", "level": '
    log = [
        at + '"info", "message": "distill: distil 4 of 10", "kind": "progress"}',
        at + '"warning", "message": "MLflow is away"}',
        at + '"error", "message": "/data/ads: row 3 has no answer"}',
        at + '"error", "message": "KeyError: 3", "traceback": "Traceback ..."}',
        '{"level":"info","msg":"of Argo\'s executor"}',
    ]
    runs(kubernetes, done("p", "distill", "block", exitCode=2, reason="Error"))
    kubernetes.answers[f"{PODS}/p/log"] = Raw(200, "\n".join(log).encode(), "text/plain")
    found = why_failed(cluster, PLACE)
    assert found is not None
    assert found.lines == ("error: /data/ads: row 3 has no answer", "KeyError: 3")


def test_without_an_error_the_last_lines_are_shown(kubernetes: Kubernetes, cluster: Cluster) -> None:
    runs(kubernetes, done("p", "distill", "block", exitCode=139, reason="Error"))
    log = b"\n".join(b"line %d" % number for number in range(300)) + b"\n" + LOG.splitlines()[0]
    kubernetes.answers[f"{PODS}/p/log"] = Raw(200, log, "text/plain")
    found = why_failed(cluster, PLACE)
    assert found is not None
    assert found.lines == tuple(f"line {number}" for number in range(295, 300))


def test_the_pod_that_failed_last_counts(kubernetes: Kubernetes, cluster: Cluster) -> None:
    first = done("first", "distill", "block", 0, 1, exitCode=1, reason="Error")
    last = done("last", "gate", "block", 4, 5, exitCode=1, reason="Error")
    runs(kubernetes, last, first)
    assert "gate of block failed in pod last" in str(why_failed(cluster, PLACE))


def test_without_a_pod_argos_own_words_are_told(kubernetes: Kubernetes, cluster: Cluster) -> None:
    runs(kubernetes, of=workflow("Failed", message="pod deleted"))
    assert str(why_failed(cluster, PLACE)) == "the workflow failed: pod deleted"
    runs(kubernetes, of=workflow("Failed"))
    assert why_failed(cluster, PLACE) is None
