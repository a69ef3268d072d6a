"""Several nodes that distil together: each runs `distill_node`, and the store has what one machine would make."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support import task_functions as tasks
from support.argo_pods import PODS
from support.kubernetes_api import HOME, Kubernetes, listed, named
from support.plans import PROFILE
from support.ports import two_free_ports
from support.tasks import prepared
from support.trainings import node_pod, show, train_job

from lmmpress.errors import AwayError
from lmmpress.host.machines import Machines, machines_here
from lmmpress.host.pod import NAMESPACE, POD, WORKFLOW
from lmmpress.tasks.cluster_profile import Profile
from lmmpress.tasks.session import working
from lmmpress.tasks.training import train
from lmmpress.tasks.training_manifest import TASK, TRAINING, asked_training, training_manifest, training_variable
from lmmpress.tasks.training_node import distill_node
from lmmpress.tasks.tries import RETRIES, SMALLER, TRY, counted, halvings

STEP = ("block", 0)
TOLD = ("PET_NNODES", "PET_NPROC_PER_NODE", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT")


def environment(machines: Machines) -> dict[str, str]:
    """What Kubeflow Trainer tells a node."""
    told = machines.count, machines.processes, machines.number, machines.address, machines.port
    return dict(zip(TOLD, map(str, told), strict=True))


class Trainer:
    """Runs the nodes of a TrainJob as processes of this machine, and shows the job complete once they have ended."""

    def __init__(self, kubernetes: Kubernetes) -> None:
        self.cluster, self.nodes = kubernetes, list[subprocess.Popen[str]]()
        self.begun: list[dict[str, Any]] = []
        kubernetes.on_job = self.begin
        kubernetes.answers[PODS] = self.look

    def begin(self, job: dict[str, Any]) -> None:
        asked, port = job["spec"]["trainer"], two_free_ports()
        self.begun.append(job)
        for number in range(asked["numNodes"]):
            machines = Machines(asked["numNodes"], asked["numProcPerNode"], number, "127.0.0.1", port)
            own = {**os.environ, **environment(machines), "OMP_NUM_THREADS": "1"}
            own.pop(TRAINING)
            command = [sys.executable, "-m", "lmmpress.cli", "task", TASK, *asked["args"]]
            pipe = subprocess.PIPE
            self.nodes.append(subprocess.Popen(command, env=own, stdout=pipe, stderr=pipe, text=True, encoding="utf-8"))

    def look(self, _: str | None) -> dict[str, Any]:
        if all(node.poll() is not None for node in self.nodes):
            told = [node.communicate()[1] for node in self.nodes]
            ended = "Complete" if not any(node.returncode for node in self.nodes) else "Failed"
            (name,) = self.cluster.jobs
            job = train_job(ended, message="; ".join(told))
            self.cluster.jobs[name] = job | {"metadata": job["metadata"] | {"name": name}}
        return listed()


@pytest.mark.long
def test_a_stage_whose_steps_two_nodes_distil_gives_what_one_machine_does(
    raw_plan: dict[str, Any], tmp_path: Path, in_a_pod: Kubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = raw_plan | {"stages": {"block": {"step": 1, "max": 1}}}
    trainer = Trainer(in_a_pod)
    manifest: Any = training_manifest(Profile.model_validate(ON_NODES | {"components": {"distill": {"nodes": 2}}}))
    manifest["spec"]["trainer"]["numProcPerNode"] = 1
    losses = []
    for folder in ("nodes", "alone"):
        store, run, _ = prepared(raw | {"store": str(tmp_path / folder)})
        tasks.evaluate(store, run, "original")
        if folder == "nodes":
            monkeypatch.setenv(TRAINING, json.dumps(manifest))
        else:
            monkeypatch.delenv(TRAINING)
        tasks.compress_stage(store, run, "block")
        with working(store, run) as session:
            found = session.step(*STEP).distilled
        assert found.record is not None
        losses.append(found.loss)
        if folder == "nodes":
            (job,) = trainer.begun
            assert job["metadata"]["name"] == f"distill-{found.record.name.rpartition('-')[2][:16]}"
            assert not in_a_pod.jobs, "it is removed when its result is in the store"
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_machine_learns_of_the_others_from_the_variables_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machines_here(8) is None
    asked = Machines(2, 8, 1, "distill-1-node-0-0.distill-1", 29500)
    for name, value in environment(asked).items():
        monkeypatch.setenv(name, value)
    assert machines_here(4) == asked
    monkeypatch.setenv("PET_NPROC_PER_NODE", "auto")
    assert machines_here(4) == Machines(2, 4, 1, asked.address, asked.port)
    monkeypatch.setenv("PET_NNODES", "1")
    assert machines_here(4) is None, "one machine shares with no other"


def test_a_node_alone_is_refused(raw_plan: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        distill_node("store", "run", *STEP)
    assert ended.value.code == 2
    assert "runs on the nodes of a TrainJob" in capsys.readouterr().err


DEFAULTS: dict[str, Any] = dict(PROFILE["defaults"])  # type: ignore[call-overload]
ON_NODES = PROFILE | {
    "queue": "gpu-team-ads",
    "trainer": {"runtime": "team-ads-lmmpress"},
    "components": {
        "distill": {
            "nodes": 2,
            "gpus": 8,
            "shm": "64Gi",
            "requests": {"cpu": "16", "memory": "200Gi"},
            "node_selector": {"pool": "h100"},
            "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoExecute", "toleration_seconds": 60}],
            "affinity": [
                {"expressions": [{"key": "gpu", "operator": "In", "values": ["h100"]}]},
                {"expressions": [{"key": "spot", "operator": "DoesNotExist"}], "weight": 5},
            ],
            "timeout": 3600,
        }
    },
}


def test_the_manifest_is_valid_by_the_published_schema_and_has_all_of_the_profile() -> None:
    made: Any = training_manifest(Profile.model_validate(ON_NODES))
    schema = json.loads((Path(__file__).parent / "trainjob-2.3.0.json").read_text("utf-8"))
    jsonschema.Draft202012Validator(schema).validate(made)
    assert re.fullmatch("[a-z.]+/[a-z]+", made["spec"]["runtimePatches"][0]["manager"]), "what its webhook asks for"
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpu-team-ads"
    spec = made["spec"]
    assert spec["runtimeRef"] == {"name": "team-ads-lmmpress"}
    assert (spec["trainer"]["numNodes"], spec["trainer"]["numProcPerNode"]) == (2, 8)
    assert spec["trainer"]["resourcesPerNode"] == {
        "requests": {"cpu": "16", "memory": "200Gi"},
        "limits": {"nvidia.com/gpu": "8"} | DEFAULTS.get("limits", {}),
    }
    (job,) = spec["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"pool": "h100"}
    assert pod["tolerations"][0]["tolerationSeconds"] == 60
    assert pod["affinity"]["nodeAffinity"].keys() == {
        "requiredDuringSchedulingIgnoredDuringExecution",
        "preferredDuringSchedulingIgnoredDuringExecution",
    }
    mounted = {one["mountPath"]: one["name"] for one in pod["containers"][0]["volumeMounts"]}
    assert {"/tmp", "/cache", "/dev/shm"} <= mounted.keys()
    assert {one["name"] for one in pod["volumes"]} == set(mounted.values())
    secret = [one for one in spec["trainer"]["env"] if "KEY" in one["name"]]
    assert secret
    assert all(one["valueFrom"]["secretKeyRef"]["name"] == "lmmpress-store" for one in secret), "by name alone"


def test_the_pod_of_the_task_only_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = Profile.model_validate(ON_NODES)
    assert profile.pod("distill").gpus == 8
    follower = profile.task_pod("distill")
    assert (follower.gpus, follower.shm, follower.timeout) == (0, DEFAULTS.get("shm"), 3600)
    assert profile.task_pod("importance") == profile.pod("importance")
    for name, value in training_variable(profile, "distill").items():
        monkeypatch.setenv(name, value)
    assert asked_training() == training_manifest(profile)
    one = Profile.model_validate(ON_NODES | {"components": {"distill": {"nodes": 1}}})
    assert training_variable(one, "distill") == {}
    assert training_variable(profile, "evaluate") == {}
    assert one.task_pod("distill") == one.pod("distill")


@pytest.fixture
def in_a_pod(kubernetes: Kubernetes, monkeypatch: pytest.MonkeyPatch) -> Kubernetes:
    """A cluster, in a pod of which a workflow of Argo's runs this process."""
    monkeypatch.setattr("lmmpress.pods.trainings.PAUSE", 0.01)
    monkeypatch.setenv(POD, "p-1")
    monkeypatch.setenv(NAMESPACE, "team-ads")
    kubernetes.answers[f"{HOME}/pods/p-1"] = own_pod()
    show(kubernetes, node_pod(0))
    return kubernetes


OWNER = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "w", "uid": "w-1"}


def own_pod(**metadata: str) -> dict[str, Any]:
    pod = named("p-1")
    pod["metadata"] |= {"ownerReferences": [OWNER | {"controller": True, "blockOwnerDeletion": True}]} | metadata
    return pod


def distil() -> None:
    manifest: Any = training_manifest(Profile.model_validate(ON_NODES))
    train(manifest, f"distill-{'0123456789abcdef' * 4}", store="s3://b/store", run="r", stage="block", index=0)


def test_a_training_is_named_after_its_part_and_goes_with_its_workflow(in_a_pod: Kubernetes) -> None:
    posted = []

    def begin(job: dict[str, Any]) -> None:
        posted.append(job)
        in_a_pod.jobs[job["metadata"]["name"]] = train_job("Complete") | {"metadata": job["metadata"]}

    in_a_pod.on_job = begin
    distil()
    (made,) = posted
    assert made["metadata"]["name"] == "distill-0123456789abcdef"
    assert made["metadata"]["ownerReferences"] == [OWNER], "it blocks nobody"
    asked, given = made["spec"]["trainer"]["args"]
    assert asked == "--arguments"
    assert json.loads(given) == {"store": "s3://b/store", "run": "r", "stage": "block", "index": 0}


@pytest.mark.parametrize(
    ("metadata", "stays"),
    [({}, False), ({"deletionTimestamp": "2026-01-01T10:00:00Z"}, True)],
    ids=["ended", "evicted"],
)
def test_a_run_that_is_ended_ends_its_training_and_a_pod_that_is_evicted_leaves_it(
    in_a_pod: Kubernetes, metadata: dict[str, str], stays: bool
) -> None:
    def look(_: str | None) -> dict[str, Any]:
        in_a_pod.answers[f"{HOME}/pods/p-1"] = own_pod(**metadata)
        os.kill(os.getpid(), signal.SIGTERM)
        return listed(node_pod(0))

    def begin(job: dict[str, Any]) -> None:
        in_a_pod.jobs[job["metadata"]["name"]] = train_job() | {"metadata": job["metadata"]}

    in_a_pod.on_job = begin
    in_a_pod.answers[PODS] = look
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        distil()
    assert ended.value.code == 143
    assert bool(in_a_pod.jobs) is stays
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_node_that_was_killed_for_its_memory_halves_the_rows_of_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {TRY: "0", RETRIES: "2", WORKFLOW: "w", SMALLER: ""}.items():
        monkeypatch.setenv(name, value)
    task = str(tmp_path / "store"), "run", "distill", *STEP
    with pytest.raises(SystemExit), counted(*task):
        try:
            raise AwayError("TrainJob distill-1 failed: distill failed in pod p: OOMKilled, its memory limit is 3Gi")
        except AwayError:
            sys.exit(1)
    monkeypatch.setenv(TRY, "1")
    with counted(*task):
        assert halvings() == 1
