"""Runs of the proof: a submission of `lmmpress submit --wait`, and what it came to."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from support.cluster.helpers_in_cluster import Helpers, as_json
from support.cluster.kubectl import Node, found, kubectl, wait_for
from support.cluster.release import merged
from support.cluster.watched import Seen, Watched

LMMPRESS = Path(sys.executable).with_name("lmmpress")
PLAN: Node = {
    "towers": ["language"],
    # the last step loses more than alpha: a stage that ends early, with a step that is rolled back
    "tolerance": {"alpha": 0.05, "reference": "stage", "on_violation": "rollback", "confidence": "none"},
    "importance": {"criterion": "magnitude", "owned": "equations", "rows": 20},
    "stages": {"block": {"step": 1, "max": 1}, "ffn": {"step": 200, "max": 400}},
    "distillation": {
        "epochs": 1,
        "rows": 128,
        "learning_rate": 6.0e-4,
        "batch_size": 32,
        "kl": "forward",
        "gamma": 1.0,
        "pairwise": "eq5",
    },
    "evaluation": {"batch_size": 64, "samples": 16, "latency_samples": 4, "seconds": 2},
    "compare": True,
}
"""The sample cut short. Its amounts are those at which the last of three steps is rolled back."""
PICTURES = {"score": 10, "distill": 50, "gate": 40, "test": 40}
"""So many pictures of each split, with three to five questions each."""


@dataclass
class Run:
    """A submission. Its name is the folder of its store and its data in the bucket."""

    name: str
    engine: str
    granularity: str
    profile: Node
    root: str
    watched: Watched
    environment: dict[str, str]
    folder: Path
    began: float = 0.0
    ended: float = 0.0
    workflows: set[str] = field(default_factory=set)
    object: Node = field(default_factory=dict)
    _process: subprocess.Popen[str] | None = None

    @property
    def label(self) -> str:
        return f"{self.engine} by {self.granularity}"

    @property
    def experiment(self) -> str:
        """Its experiment in MLflow, which no other proof has used."""
        return f"{self.root.rpartition('/')[2]}-{self.name}"

    @property
    def store(self) -> str:
        return f"{self.root}/{self.name}/store"

    @property
    def output(self) -> str:
        return self._output.read_text("utf-8")

    @property
    def _output(self) -> Path:
        return self.folder / f"{self.name}-{self.engine}-{self.granularity}.txt"

    def submit(self) -> None:
        """Submit the plan, and follow it in a process of its own."""
        place = {
            "model": f"{self.root}/{self.name}/model",
            "data": f"{self.root}/{self.name}/data",
            "store": self.store,
        }
        plan, profile = (self.folder / f"{self._output.stem}-{what}.yaml" for what in ("plan", "cluster"))
        plan.write_text(yaml.safe_dump(PLAN | place), "utf-8")
        profile.write_text(
            yaml.safe_dump(merged(self.profile, {"environment": {"MLFLOW_EXPERIMENT_NAME": self.experiment}})),
            "utf-8",
        )
        command = [str(LMMPRESS), "submit", str(plan), "--cluster", str(profile), "--engine", self.engine]
        command += ["--granularity", self.granularity, "--wait"]
        with self._output.open("w", encoding="utf-8") as file:
            self.began = time.time()
            environment = os.environ | self.environment | {"COLUMNS": "120"}
            self._process = subprocess.Popen(
                command, env=environment, stdout=file, stderr=subprocess.STDOUT, encoding="utf-8"
            )

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def known(self) -> bool:
        """Whether the workflow of this run is known; notes it."""
        if link := re.search(r"#/runs/details/([-0-9a-f]{36})", self.output):
            pods = [one for one in list(self.watched.pods.values()) if one.labels.get("pipeline/runid") == link[1]]
            self.workflows |= {one.workflow for one in pods}
        elif named := re.search(r"workflows?[/ ](?:\S+/)?(lmm[-\w]+)", self.output):
            self.workflows.add(named[1])
        return bool(self.workflows)

    @property
    def pods(self) -> list[Seen]:
        return self.watched.of(self.workflows) if self.known() else []

    def wait(self, seconds: float) -> int:
        """The exit code of `submit --wait`."""
        assert self._process is not None
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise AssertionError(f"{self.label} did not end in {seconds:.0f} s:\n{self.output[-3000:]}") from None
        self.ended = time.time()
        self.known()
        self.object = self._workflow()
        return code

    def cancel(self) -> None:
        """End the run as people do: in Kubeflow's API, or by Argo's `shutdown`."""
        wait_for(f"the workflow of {self.label}", self.known, 60)
        if self.engine == "kubeflow":
            (run_id,) = re.findall(r"#/runs/details/([-0-9a-f]{36})", self.output)
            host = str(self.profile["kubeflow"]["host"]).rstrip("/")
            request = urllib.request.Request(f"{host}/apis/v2beta1/runs/{run_id}:terminate", data=b"{}", method="POST")
            if token := self.environment.get("KFP_TOKEN"):
                request.add_header("Authorization", f"Bearer {token}")
            urllib.request.urlopen(request, timeout=30).read()
            return
        patch = json.dumps({"spec": {"shutdown": "Stop"}})
        for name in self.workflows:
            kubectl("patch", "workflow", name, "-n", self.watched.namespace, "--type=merge", "-p", patch)

    def _workflow(self) -> Node:
        names = self.workflows
        return next((one for one in found("workflows", self.watched.namespace) if one["metadata"]["name"] in names), {})

    def end_following(self) -> None:
        if self._process is not None and self.is_running():
            self._process.kill()


def decisions(stored: Node) -> list[dict[str, Any]]:
    """What has to be equal wherever a run is made: of each step its decision, accuracy and checkpoint. `stored` is what
    `lmmpress store ls --json` prints."""
    (run,) = stored["runs"]
    keys = ("stage", "index", "removed", "decision", "accuracy_pruned", "accuracy", "checkpoint")
    return [{key: step[key] for key in keys} for step in run["steps"]]


def decided(helpers: Helpers, store: str) -> list[dict[str, Any]]:
    """The decisions in a store."""
    return decisions(as_json(helpers.lmmpress("store", "ls", store, "--json")))


def compared(helpers: Helpers, store: str) -> dict[str, Any]:
    """The comparison that a run in a store has made, beside its result: the checkpoints of both, and what is lost."""
    return dict(as_json(helpers.python(_COMPARED.format(store=store))))


def seed(helpers: Helpers, root: str, names: list[str]) -> None:
    """Write the sample's model and a small part of its data into the folder of each run."""
    assert "rows" in helpers.python(_SEED.format(sizes=PICTURES, root=root, names=names), 600)


def forget(helpers: Helpers, root: str) -> None:
    """Remove what the proof has written into the bucket."""
    helpers.python(_FORGET.format(root=root))


def reference(helpers: Helpers) -> list[dict[str, Any]]:
    """The decisions of `lmmpress run` with the same plan, in one process of the pod for commands."""
    place = {"model": "/tmp/sample/model", "data": "/tmp/sample/data", "store": "/tmp/reference/store"}
    script = _REFERENCE.format(plan=json.dumps(PLAN | place))
    helpers.python(script, 900)
    return decisions(as_json(helpers.lmmpress("store", "ls", "/tmp/reference/store", "--json")))


_SEED = """
import os, shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import lmmpress.sample
from lmmpress.sample.dataset import build
from lmmpress.store.connection import connect

def main():
    here = Path("/tmp/sample")
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir()
    data = build(here / "data", sizes={sizes})
    shutil.copytree(Path(lmmpress.sample.__file__).with_name("antgmm_mini"), here / "model")
    bucket, _, prefix = "{root}".removeprefix("s3://").partition("/")
    files = [file for file in here.rglob("*") if file.is_file()]
    client = connect()
    def send(name):
        for file in files:
            client.fput_object(bucket, f"{{prefix}}/{{name}}/{{file.relative_to(here)}}", str(file))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, {names}))
    print(len((data / "metadata.jsonl").read_text("utf-8").splitlines()), "rows")

main()
"""
_COMPARED = """
import json
from lmmpress.engine.kept import kept_comparison, kept_result
from lmmpress.store import open_store

store = open_store("{store}", make=False)
(name,) = [entry.name for entry in store.objects.entries("records/compared-")]
key = name.removeprefix("records/compared-").removesuffix(".json")
found, result = kept_comparison(store, key), kept_result(store, key)
told = {{
    "compared": [found.a.checkpoint, found.b.checkpoint, found.all.drop],
    "result": [result.original.checkpoint, result.compressed.checkpoint, result.drop],
    "turns": found.turns is not None,
}}
print(json.dumps(told))
"""
_FORGET = """
from minio.deleteobjects import DeleteObject
from lmmpress.store.connection import connect
bucket, _, prefix = "{root}".removeprefix("s3://").partition("/")
client = connect()
names = [DeleteObject(one.object_name) for one in client.list_objects(bucket, prefix + "/", recursive=True)]
print(*client.remove_objects(bucket, names))
"""
_REFERENCE = """
import shutil, subprocess, sys
from pathlib import Path
shutil.rmtree("/tmp/reference", ignore_errors=True)
Path("/tmp/plan.yaml").write_text({plan!r}, "utf-8")
command = ["lmmpress", "run", "/tmp/plan.yaml", "--out", "/tmp/reference/out"]
done = subprocess.run(command, capture_output=True, encoding="utf-8")
print(done.stdout[-2000:])
sys.exit(done.stderr[-2000:] if done.returncode else 0)
"""
