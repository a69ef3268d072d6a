"""The cluster of KUBECONFIG, the chart in namespaces of it, and the runs of the proof: `make cluster-test`.

CONTRIBUTING.md says what the variables LMMPRESS_TEST_* mean. Each run carries several disturbances, since a run takes
minutes; the tests look at what was left of them. The order of the tests is that of the runs.
"""

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cluster import engines
from support.cluster.disturbances import Disturbances, reached
from support.cluster.engines import Installed
from support.cluster.helpers_in_cluster import TOOLS, Helpers
from support.cluster.kubectl import kubectl, one, why_no_cluster
from support.cluster.measures import markdown, measured
from support.cluster.release import CHART, NAME, Release, copy_secret, merged, secret
from support.cluster.runs import Run, forget, reference, seed
from support.cluster.triggers import PODS, Triggered
from support.cluster.watched import WORKFLOW, Watched
from support.environment import hidden
from support.paths import ROOT
from support.real_helm import find_helm

LONGEST = 25 * 60  # seconds that a run may take, disturbed or not


def variable(name: str, default: str = "") -> str:
    return hidden.get(f"LMMPRESS_TEST_{name}", "") or default


@dataclass
class Proof:
    """A cluster with the chart, and what was found so far. The first engine's release has MLflow; the other uses it."""

    folder: Path
    theirs: Path | None
    values: dict[str, Any]
    installed: list[Installed]
    releases: dict[str, Release]
    watched: dict[str, Watched]
    helpers: Helpers
    root: str
    runs: list[Run] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    alone: Future[list[dict[str, Any]]] | None = None

    def begin_alone(self) -> Future[list[dict[str, Any]]]:
        """`lmmpress run` in the pod for commands, beside what else happens."""
        if self.alone is None:
            self.alone = ThreadPoolExecutor().submit(reference, self.helpers)
        return self.alone

    @property
    def first(self) -> Release:
        return self.releases[self.installed[0].name]

    def run(self, name: str, engine: str, granularity: str) -> Run:
        release = self.releases[engine]
        profile = merged(release.profile(), {"environment": {"AWS_ENDPOINT_URL": self.helpers.address}})
        keys = self.helpers.keys
        theirs = secret(self.helpers.namespace, keys["name"])
        environment = {variable: theirs[key] for key, variable in keys["keys"].items()}
        environment |= {"AWS_ENDPOINT_URL": variable("ENDPOINT", self.helpers.endpoint)}
        environment |= {key: value for key, value in hidden.items() if key.startswith(("AWS_", "KFP_"))}
        made = Run(name, engine, granularity, profile, self.root, self.watched[engine], environment, self.folder)
        self.runs.append(made)
        return made


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """The cluster, by the variable that other tests hide."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        pytest.skip("these tests share one cluster, in order: make cluster-test")
    kubeconfig = hidden.get("KUBECONFIG")
    if not kubeconfig:
        pytest.skip("KUBECONFIG is not set: no cluster to try")
    os.environ["KUBECONFIG"] = kubeconfig
    if why := why_no_cluster():
        pytest.skip(why)
    yield
    del os.environ["KUBECONFIG"]


@pytest.fixture(scope="session")
def installed(cluster: None) -> list[Installed]:
    """The engines of the cluster on which pipelines can run."""
    values = their_values()
    system = dict(values.get("kubeflow", {})).get("namespace", "kubeflow")
    controller = dict(values.get("argo", {})).get("namespace", "argo")
    both = [
        engines.kubeflow(system, variable("NAMESPACE") or None),
        engines.argo(controller, variable("ARGO_NAMESPACE", "lmmpress-test-argo")),
    ]
    wanted = variable("ENGINES", "kubeflow,argo").split(",")
    found = [one for one in both if one.name in wanted and not one.why_not]
    if not found:
        pytest.skip("; ".join(one.why_not for one in both if one.why_not) or "LMMPRESS_TEST_ENGINES names no engine")
    for each in both:
        if each.why_not:
            print(f"\n{each.name}: not tried, {each.why_not}")
    return found


@pytest.fixture(scope="session")
def proof(installed: list[Installed], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proof]:
    """The chart installed for each engine, and the sample's data in the bucket."""
    helm, why = find_helm()
    if helm is None:
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("cluster")
    print(f"\nwhat runs print, their plans and the proxy's log: {folder}")
    made = install(installed, helm, folder)
    try:
        yield made
    finally:
        for run in made.runs:
            run.end_following()
        if not variable("KEEP"):
            forget(made.helpers, made.root)
            made.helpers.stop()
            for release in reversed(made.releases.values()):
                release.uninstall()


def their_values() -> dict[str, Any]:
    file = variable("VALUES")
    return dict(yaml.safe_load(Path(file).read_text("utf-8")) or {}) if file else {}


def install(installed: list[Installed], helm: Path, folder: Path) -> Proof:
    theirs = Path(variable("VALUES")).resolve() if variable("VALUES") else None
    for one_engine in installed:
        if not one("namespace", one_engine.namespace, one_engine.namespace):
            kubectl("create", "namespace", one_engine.namespace)
    first, *others = installed
    # a second retry costs a minute of waiting on a cluster: here the first one comes at once
    ours: dict[str, Any] = {"pipeline": {"retries": {"count": 2, "seconds": 5}}}
    egress = {"to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "lmmpress-test-s3"}}}]}
    policies: dict[str, Any] = {"pipelineEgress": [egress | {"ports": [{"port": 9000}]}]}
    # the pipelines of the other releases, their hook, tests and trigger, which MLflow may send to the store for a file
    pipelines = {"matchExpressions": [{"key": WORKFLOW, "operator": "Exists"}]}
    hooks = {"matchLabels": {"app.kubernetes.io/instance": NAME, "app.kubernetes.io/component": "prepare"}}
    policies["mlflowClients"] = [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": other.namespace}}, "podSelector": pods}
        for other in others
        for pods in (pipelines, hooks, PODS)
    ]
    proxy_and_tools = [{"podSelector": {"matchLabels": {"app": name}}} for name in ("lmmpress-test-s3", TOOLS)]
    policies["minioClients"] = [*proxy_and_tools, *policies["mlflowClients"]]
    # helm replaces lists: those of the cluster's own values stay
    given = dict(their_values().get("networkPolicy", {}))
    policies = {name: [*peers, *given.get(name, [])] for name, peers in policies.items()}
    release = Release(helm, first.namespace, theirs, ours | {"engine": first.name, "networkPolicy": policies})
    release.install(folder)
    values, profile = release.values(), release.profile()
    storage = values["objectStorage"]
    endpoint = profile["environment"]["AWS_ENDPOINT_URL"]
    helpers = Helpers(
        first.namespace,
        profile["image"],
        profile["pull_policy"],
        profile.get("pull_secrets", []),
        profile["secrets"]["store"],
        endpoint,
        storage["region"],
        values["clusterDomain"],
        folder,
    )
    helpers.start()
    releases = {first.name: release}
    for other in others:
        copy_secret(profile["secrets"]["store"]["name"], first.namespace, other.namespace)
        external = {
            "minio": {"enabled": False},
            "postgresql": {"enabled": False},
            "mlflow": {"enabled": False, "external": {"url": profile["environment"]["MLFLOW_TRACKING_URI"]}},
            "objectStorage": {
                "existingSecret": profile["secrets"]["store"]["name"],
                "createBuckets": False,
                "external": {"endpoint": helpers.address},
            },
            "networkPolicy": {"pipelineEgress": policies["pipelineEgress"]},
        }
        releases[other.name] = Release(helm, other.namespace, theirs, ours | {"engine": other.name} | external)
        releases[other.name].install(folder)
    # below the store's prefix, where the pipelines' keys may write
    root = "/".join(
        filter(None, ["s3:/", storage["bucket"], storage["prefix"].strip("/"), f"proof-{int(time.time())}"])
    )
    names = [f"{one.name}-{what}" for one in installed for what in ("stage", "step", "storeless")] + ["carried-on"]
    seed(helpers, root, names)
    watched = {one.name: Watched(one.namespace) for one in installed}
    for each in watched.values():
        each.start()
    made = Proof(folder, theirs, values, installed, releases, watched, helpers, root)
    made.versions = {
        "lmmpress": str(yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))["appVersion"]),
        "Kubernetes": engines.kubernetes_version(),
        "Kubeflow Pipelines": next((one.version for one in installed if one.name == "kubeflow"), ""),
        "Kubeflow's Argo": next((one.argo_version for one in installed if one.name == "kubeflow"), ""),
        "Argo": next((one.argo_version for one in installed if one.name == "argo"), ""),
    }
    return made


@pytest.fixture(scope="session")
def by_stage(proof: Proof) -> dict[str, Run]:
    """A run by stage on each engine, undisturbed but for an upgrade of the chart, which restarts MLflow; and beside
    them `lmmpress run`."""
    proof.begin_alone()
    runs = {one.name: proof.run(f"{one.name}-stage", one.name, "stage") for one in proof.installed}
    for run in runs.values():
        run.submit()
    first = next(iter(runs.values()))
    reached(first, lambda: any(one.part == "stage" and one.began for one in first.pods), 600)
    proof.first.install(proof.folder, mlflow={"podAnnotations": {"upgraded": "during a run"}})
    for run in runs.values():
        run.wait(LONGEST)
    return runs


@pytest.fixture(scope="session")
def alone(proof: Proof) -> list[dict[str, Any]]:
    """The decisions of `lmmpress run`."""
    return proof.begin_alone().result(LONGEST)


@pytest.fixture(scope="session")
def disturbed(proof: Proof, by_stage: dict[str, Run]) -> tuple[dict[str, Run], Disturbances]:
    """A run by step on each engine, both at once, with all that may befall them."""
    runs = {one.name: proof.run(f"{one.name}-step", one.name, "step") for one in proof.installed}
    disturbances = Disturbances()
    for each in proof.installed:
        disturbances.delete_a_pod_of_each_part(runs[each.name])
        runs[each.name].submit()
        disturbances.restart_controller(runs[each.name], each.system, after="gate")
    slowest = runs[proof.installed[-1].name]
    disturbances.stop_mlflow(proof.first.namespace, slowest, "block_prune", 300)
    disturbances.stop_store(proof.helpers, slowest, "distill", "ffn", 120)
    for run in runs.values():
        run.wait(LONGEST)
    disturbances.wait(300)
    return runs, disturbances


@pytest.fixture(scope="session")
def storeless(proof: Proof) -> tuple[dict[str, Run], Disturbances]:
    """A run by step on each engine, without the store for two minutes at each part. A run begins when the one before
    has outlived its first part: a first contact with the store is not waited for."""
    runs = {one.name: proof.run(f"{one.name}-storeless", one.name, "step") for one in proof.installed}
    disturbances = Disturbances()
    for number, run in enumerate(runs.values()):
        run.submit()
        if number == 0:
            disturbances.stop_store_at_each_part(proof.helpers, list(runs.values()), 120)
        reached(run, partial(disturbances.outlived, run), 600)
    for run in runs.values():
        run.wait(LONGEST + 11 * 150)
    disturbances.wait(300)
    return runs, disturbances


@pytest.fixture(scope="session")
def carried_on(proof: Proof) -> tuple[Run, Run]:
    """A run that was cancelled on one engine, and carried on by the other one; on a single engine, by itself."""
    begins, goes_on = proof.installed[-1].name, proof.installed[0].name
    cancelled, run = proof.run("carried-on", begins, "step"), proof.run("carried-on", goes_on, "stage")
    cancelled.submit()
    reached(cancelled, lambda: any(one.part == "gate" and one.ended for one in cancelled.pods), 900)
    cancelled.cancel()
    cancelled.wait(300)
    run.submit()
    run.wait(LONGEST)
    return cancelled, run


@pytest.fixture(scope="session")
def triggered(proof: Proof) -> Iterator[dict[str, Triggered]]:
    """The trigger of each release, and what came of a release in MLflow: a run by stage on each engine, both at once.
    All servers were killed as soon as a run was submitted. MLflow delivers to the trigger of its own release only; the
    other one finds the version by itself."""
    named = proof.root.rpartition("/")[2]
    made = {
        one.name: Triggered(
            proof.releases[one.name],
            proof.first,
            one.name,
            f"{named}-{one.name}",
            f"{proof.root}/{one.name}-trigger",
        )
        for one in proof.installed
    }
    seed(proof.helpers, proof.root, [f"{name}-trigger" for name in made])
    for mine in made.values():
        mine.make_secret()
        mine.release.install(proof.folder, **mine.values)
        mine.register()
    made[proof.installed[0].name].register_webhook()
    for mine in made.values():
        mine.set_release()
    for mine in made.values():
        mine.claim("submitted", "running")
        mine.kill_servers()
    for mine in made.values():
        mine.claim("succeeded", "failed", "cancelled", "lost", seconds=LONGEST)
    yield made
    if not variable("KEEP"):
        for mine in made.values():
            mine.remove_secret()


@pytest.fixture(params=["kubeflow", "argo"])
def engine(request: pytest.FixtureRequest, installed: list[Any]) -> str:
    name = str(request.param)
    if name not in [one.name for one in installed]:
        pytest.skip(f"{name} is not tried on this cluster")
    return name


@pytest.fixture(scope="session")
def results(
    proof: Proof, by_stage: dict[str, Run], disturbed: Any, storeless: Any, carried_on: Any, pytestconfig: Any
) -> dict[str, Any]:
    """The table, printed and kept as JSON; with --write-docs in docs/results."""
    runs, disturbances = disturbed
    rows = {run.label: measured(run, proof.helpers) for run in [*by_stage.values(), *runs.values()]}
    rows |= {f"{run.label}, without the store": measured(run, proof.helpers) for run in storeless[0].values()}
    rows[f"carried on by {carried_on[1].label}"] = measured(carried_on[1], proof.helpers)
    found = {"versions": proof.versions, "runs": rows, "disturbances": disturbances.done + storeless[1].done}
    text = json.dumps(found, indent=1) + "\n"
    (proof.folder / "cluster.json").write_text(text, "utf-8")
    if pytestconfig.getoption("--write-docs"):
        (ROOT / "docs/results/cluster.json").write_text(text, "utf-8")
    print("\n" + markdown(found))
    return found
