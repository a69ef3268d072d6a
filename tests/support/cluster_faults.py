"""Faults of a cluster, one at a time: how each is made, and the finding of the doctor."""

import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from support.findings import Json
from support.kubernetes_api import (
    DEPLOYMENTS,
    HOME,
    KUEUE,
    REVIEWS,
    TRAINER,
    Kubernetes,
    claim,
    deployment,
    listed,
    named,
    node,
    pod,
    refusal,
    resources,
    secret,
    training_schemas,
)

QUEUE = f"{KUEUE}/namespaces/team-ads/localqueues/gpu-team-ads"
Break = Callable[[Kubernetes, Json], Any]


@dataclass(frozen=True)
class Fault:
    """What breaks a cluster or its profile, the checks that find it, and words of what one says and advises."""

    broken: Break
    check: str | tuple[str, ...]
    status: str
    said: str
    mend: str


FAULTS: dict[str, Fault] = {}


def fault(check: str | tuple[str, ...], status: str, said: str, mend: str) -> Callable[[Break], Break]:
    """Add a fault under the name of the function that makes it."""

    def add(broken: Break) -> Break:
        FAULTS[broken.__name__] = Fault(broken, check, status, said, mend)
        return broken

    return add


@fault("API", "warning", "v1.24.1 is older than 1.28", "upgrade the cluster")
def old_kubernetes(k: Kubernetes, p: Json) -> None:
    k.answers["/version"] = {"major": "1", "minor": "24+", "gitVersion": "v1.24.1"}


@fault("API", "unknown", "reports no version", "kubectl version")
def no_version(k: Kubernetes, p: Json) -> None:
    k.answers["/version"] = {"major": 1}


@fault("namespace", "failed", "there is no namespace team-ads", "kubectl create namespace team-ads")
def no_namespace(k: Kubernetes, p: Json) -> None:
    del k.answers[HOME]


@fault("namespace", "failed", "team-ads is being deleted", "kubectl get namespace team-ads")
def namespace_going(k: Kubernetes, p: Json) -> None:
    k.answers[HOME]["status"]["phase"] = "Terminating"


def enforce_restricted(k: Kubernetes) -> None:
    k.answers[HOME]["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": "restricted"}


@fault("namespace", "failed", "Argo's own containers do not", "executor.securityContext")
def pod_security(k: Kubernetes, p: Json) -> None:
    enforce_restricted(k)
    settings = k.answers["/api/v1/namespaces/kubeflow/configmaps/workflow-controller-configmap"]
    settings["data"]["executor"] = "securityContext: {runAsNonRoot: true}"


@fault(("namespace", "Argo's retries"), "unknown", "could not be read: HTTP 403", "executor.securityContext")
def pod_security_unseen(k: Kubernetes, p: Json) -> None:
    enforce_restricted(k)
    path = "/api/v1/namespaces/kubeflow/configmaps/workflow-controller-configmap"
    k.answers[path] = refusal(403, "configmaps is forbidden")


@fault("permission to submit", "failed", "may not create runs.pipelines.kubeflow.org", "--clusterrole=kubeflow-edit")
def may_not_submit(k: Kubernetes, p: Json) -> None:
    k.denied = {("create", "runs")}


@fault("permissions of the pods", "failed", "may not create workflowtaskresults", "--resource=workflowtaskresults.argo")
def pods_may_not(k: Kubernetes, p: Json) -> None:
    k.denied_pods = {("create", "workflowtaskresults"), ("list", "pods")}


@fault("permissions of the pods", "unknown", "cannot be checked for lmmpress: HTTP 403", "kubectl auth can-i create")
def pods_rights_unseen(k: Kubernetes, p: Json) -> None:
    k.answers[f"{REVIEWS}/namespaces/team-ads/localsubjectaccessreviews"] = refusal(403, "forbidden")


@fault("permission to submit", "unknown", "does not say whether", "")
def review_says_nothing(k: Kubernetes, p: Json) -> None:
    k.answers[f"{REVIEWS}/selfsubjectaccessreviews"] = {"status": {}}


@fault("CRDs of Argo", "failed", "no workflowtaskresults.argoproj.io", "install Argo")
def old_argo_kinds(k: Kubernetes, p: Json) -> None:
    k.answers["/apis/argoproj.io/v1alpha1"] = resources("workflows", "workflowtasksets")


@fault("CRDs of Kubeflow Pipelines", "failed", "no scheduledworkflows.kubeflow.org", "install Kubeflow Pipelines")
def no_kubeflow_kinds(k: Kubernetes, p: Json) -> None:
    del k.answers["/apis/kubeflow.org/v1beta1"]


@fault("workflow-controller", "failed", "no pod of it is ready", "kubectl logs deployment/workflow-controller")
def argo_down(k: Kubernetes, p: Json) -> None:
    k.answers[f"{DEPLOYMENTS}/workflow-controller"]["status"] = {"readyReplicas": 0}


@fault("ml-pipeline", "failed", "version 2.5 in kubeflow; 2.15 or newer", "upgrade to 2.15")
def old_kubeflow(k: Kubernetes, p: Json) -> None:
    k.answers[f"{DEPLOYMENTS}/ml-pipeline"] = deployment("ghcr.io/kubeflow/kfp-api-server:2.5.0@sha256:" + "0" * 64)


@fault("ml-pipeline-persistenceagent", "unknown", "there is no such deployment", "kubectl get deployment -A")
def no_agent(k: Kubernetes, p: Json) -> None:
    del k.answers[f"{DEPLOYMENTS}/ml-pipeline-persistenceagent"]


@fault("Kubeflow's API", "failed", "cannot be reached", "kubectl port-forward")
def kubeflow_elsewhere(k: Kubernetes, p: Json) -> None:
    p["kubeflow"]["host"] = "http://127.0.0.1:1"


@fault("Kubeflow's API", "warning", "has no address to submit", "kubeflow.host")
def kubeflow_unnamed(k: Kubernetes, p: Json) -> None:
    del p["kubeflow"]["host"]


@fault("service account", "failed", "there is no lmmpress in team-ads", "kubectl create serviceaccount lmmpress")
def no_account(k: Kubernetes, p: Json) -> None:
    del k.answers[f"{HOME}/serviceaccounts/lmmpress"]


@fault("secret lmmpress-store (store)", "failed", "there is none", "kubectl create secret generic lmmpress-store")
def no_secret(k: Kubernetes, p: Json) -> None:
    del k.answers[f"{HOME}/secrets/lmmpress-store"]


@fault("secret lmmpress-store (store)", "failed", "has no AWS_SECRET_ACCESS_KEY; it has", "secrets.store")
def secret_without_a_key(k: Kubernetes, p: Json) -> None:
    k.answers[f"{HOME}/secrets/lmmpress-store"] = secret("lmmpress-store", "AWS_ACCESS_KEY_ID", "secretkey")


@fault("secret lmmpress-mlflow (mlflow)", "unknown", "HTTP 403: secrets is forbidden", "ask an administrator")
def secret_unseen(k: Kubernetes, p: Json) -> None:
    k.answers[f"{HOME}/secrets/lmmpress-mlflow"] = refusal(403, "secrets is forbidden")


@fault("pull secret registry", "failed", "there is none", "--docker-server=registry.example.com")
def no_pull_secret(k: Kubernetes, p: Json) -> None:
    del k.answers[f"{HOME}/secrets/registry"]


@fault("pull secret registry", "failed", "is of type Opaque", "docker-registry")
def pull_secret_of_a_wrong_type(k: Kubernetes, p: Json) -> None:
    k.answers[f"{HOME}/secrets/registry"] = secret("registry", ".dockerconfigjson")


@fault("pull secret registry", "warning", "logs in to quay.io; the image is from registry.ex", "docker-reg")
def pull_secret_of_another_registry(k: Kubernetes, p: Json) -> None:
    told = b64encode(json.dumps({"auths": {"quay.io": {}}}).encode()).decode()
    k.answers[f"{HOME}/secrets/registry"]["data"] = {".dockerconfigjson": told}


@fault("claim ads", "failed", "there is none", "kubectl get pvc")
def no_claim(k: Kubernetes, p: Json) -> None:
    del k.answers[f"{HOME}/persistentvolumeclaims/ads"]


@fault("claim lmmpress-cache", "failed", "there is no storage class fast", "kubectl get storageclasses")
def no_storage_class(k: Kubernetes, p: Json) -> None:
    k.answers[f"{HOME}/persistentvolumeclaims/lmmpress-cache"] = claim("fast", "Pending")


@fault("claim lmmpress-cache", "failed", "the cluster has no default", "is-default-class=true")
def no_default_class(k: Kubernetes, p: Json) -> None:
    k.answers[f"{HOME}/persistentvolumeclaims/lmmpress-cache"] = claim("", "Pending")


@fault("claim lmmpress-cache", "warning", "only pods of one node", "ReadWriteMany")
def claim_of_one_node(k: Kubernetes, p: Json) -> None:
    k.answers[f"{HOME}/persistentvolumeclaims/lmmpress-cache"] = claim(mode="ReadWriteOnce")


@fault("queue gpu-team-ads", "failed", "the cluster has no Kueue", "leave out queue")
def no_kueue(k: Kubernetes, p: Json) -> None:
    del k.answers["/apis/kueue.x-k8s.io"]


@fault("queue gpu-team-ads", "failed", "no such LocalQueue in team-ads", "kubectl get localqueues -n team-ads")
def no_queue(k: Kubernetes, p: Json) -> None:
    del k.answers[QUEUE]


@fault("queue gpu-team-ads", "failed", "is stopped (Hold)", "kubectl patch localqueue gpu-team-ads")
def queue_held(k: Kubernetes, p: Json) -> None:
    k.answers[QUEUE]["spec"]["stopPolicy"] = "Hold"


@fault("queue gpu-team-ads", "failed", "is not active: its flavor is gone", "kubectl describe clusterqueue gpus")
def queue_inactive(k: Kubernetes, p: Json) -> None:
    told = {"type": "Active", "status": "False", "message": "its flavor is gone"}
    k.answers[f"{KUEUE}/clusterqueues/gpus"]["status"]["conditions"] = [told]


@fault("queue gpu-team-ads", "failed", "gives 2 nvidia.com/gpu; distill asks for 4", "nominalQuota")
def queue_too_small(k: Kubernetes, p: Json) -> None:
    flavor = k.answers[f"{KUEUE}/clusterqueues/gpus"]["spec"]["resourceGroups"][0]["flavors"][0]
    flavor["resources"][2]["nominalQuota"] = "2"


@fault("queue gpu-team-ads", "failed", "gives no memory", "nominalQuota of memory")
def queue_without_memory(k: Kubernetes, p: Json) -> None:
    flavor = k.answers[f"{KUEUE}/clusterqueues/gpus"]["spec"]["resourceGroups"][0]["flavors"][0]
    del flavor["resources"][1]


def set_quota(k: Kubernetes, hard: Json, used: Json | None = None, **spec: Any) -> None:
    quota = named("team", spec={"hard": hard} | spec, status={"hard": hard, "used": used or {}})
    k.answers[f"{HOME}/resourcequotas"] = listed(quota)


@fault("quota team for distill", "failed", "asks for 4, the quota is 2 in all", "kubectl edit resourcequota team")
def quota_of_gpus(k: Kubernetes, p: Json) -> None:
    set_quota(k, {"requests.nvidia.com/gpu": "2"})


@fault("quota team for distill", "warning", "asks for 4, but 3 of 8 are left", "wait for other pods")
def quota_used_up(k: Kubernetes, p: Json) -> None:
    set_quota(k, {"requests.nvidia.com/gpu": "8"}, {"requests.nvidia.com/gpu": "5"})


@fault("quota team for", "unknown", "its scopes do not show", "kubectl describe resourcequota team")
def quota_of_a_priority(k: Kubernetes, p: Json) -> None:
    set_quota(k, {"requests.nvidia.com/gpu": "2"}, scopeSelector={"matchExpressions": [{"scopeName": "PriorityClass"}]})


@fault("quota team for distill", "failed", "the quota is 2 in all", "kubectl edit resourcequota team")
def quota_of_pods_with_a_deadline(k: Kubernetes, p: Json) -> None:
    set_quota(k, {"requests.nvidia.com/gpu": "2"}, scopes=["Terminating", "NotBestEffort"])


@fault("quota team for", "failed", "must set limits.cpu", "set limits.cpu in the profile")
def quota_asks_for_limits(k: Kubernetes, p: Json) -> None:
    set_quota(k, {"limits.cpu": "100"})


@fault("limit range small for", "failed", "memory: 32Gi is more than 8Gi", "kubectl edit limitrange small")
def limit_range(k: Kubernetes, p: Json) -> None:
    limits = [{"type": "Container", "max": {"memory": "8Gi"}}]
    k.answers[f"{HOME}/limitranges"] = listed(named("small", spec={"limits": limits}))


@fault("quotas", "unknown", "could not be looked at: HTTP 403", "kubectl auth can-i")
def quotas_unseen(k: Kubernetes, p: Json) -> None:
    k.answers[f"{HOME}/resourcequotas"] = refusal(403, "resourcequotas is forbidden")


def set_nodes(k: Kubernetes, *nodes: Json) -> None:
    k.answers["/api/v1/nodes"] = listed(*nodes)


@fault("nodes for", "failed", "2 without the label pool=gpu", "kubectl label node gpu-1 pool=gpu")
def no_label(k: Kubernetes, p: Json) -> None:
    for one in k.answers["/api/v1/nodes"]["items"]:
        del one["metadata"]["labels"]["pool"]


@fault("nodes for", "failed", "outside of the affinity (gpu.kind In H100 A100)", "change affinity")
def wrong_kind(k: Kubernetes, p: Json) -> None:
    for one in k.answers["/api/v1/nodes"]["items"]:
        one["metadata"]["labels"]["gpu.kind"] = "T4"


@fault("nodes for", "failed", "with the taint team=vision:NoExecute", "key: team, operator: Equal, value: vision")
def taint(k: Kubernetes, p: Json) -> None:
    for one in k.answers["/api/v1/nodes"]["items"]:
        one["spec"]["taints"].append({"key": "team", "value": "vision", "effect": "NoExecute"})


@fault("nodes for", "failed", "too small (nvidia.com/gpu 0 of 1)", "device plugin that offers nvidia.com/gpu")
def no_device_plugin(k: Kubernetes, p: Json) -> None:
    set_nodes(k, node("gpu-1", gpus=0))


@fault("nodes for distill", "failed", "too small (nvidia.com/gpu 2 of 4)", "smaller requests for distill")
def too_few_gpus_on_a_node(k: Kubernetes, p: Json) -> None:
    set_nodes(k, node("gpu-1", gpus=2), node("gpu-2", gpus=2))
    k.answers["/api/v1/pods"] = listed()


@fault("nodes for", "failed", "1 cordoned; 1 not ready", "kubectl")
def nodes_away(k: Kubernetes, p: Json) -> None:
    away = node("gpu-2")
    away["status"]["conditions"][0]["status"] = "Unknown"
    set_nodes(k, node("gpu-1", unschedulable=True), away)


@fault("nodes for distill", "warning", "2 match, but none has room now; gpu-1 has nvidia.com/gpu 2 of 4", "pods wait")
def nodes_full(k: Kubernetes, p: Json) -> None:
    k.answers["/api/v1/pods"] = listed(pod("a", "gpu-1", gpu="6"), pod("b", "gpu-2", gpu="5"))


@fault("nodes for", "unknown", "free resources could not be read: HTTP 403", "kubectl describe nodes")
def pods_unseen(k: Kubernetes, p: Json) -> None:
    k.answers["/api/v1/pods"] = refusal(403, "pods is forbidden")


@fault("nodes", "unknown", "could not be looked at: HTTP 403", "kubectl auth can-i")
def nodes_unseen(k: Kubernetes, p: Json) -> None:
    k.answers["/api/v1/nodes"] = refusal(403, "nodes is forbidden")


@fault("MLflow", "warning", "MLFLOW_TRACKING_URI is not set", "environment:")
def no_mlflow(k: Kubernetes, p: Json) -> None:
    p["environment"] = {}


RUNTIME = f"{TRAINER}/clustertrainingruntimes/lmmpress"


def on_nodes(p: Json, nodes: int = 2, **more: Any) -> None:
    """Several nodes distil."""
    p["components"]["distill"] |= {"nodes": nodes} | more


@fault(("CRDs of Kubeflow Trainer", "runtime lmmpress"), "failed", "no trainjobs.trainer.kubeflow.org", "install Kub")
def no_trainer(k: Kubernetes, p: Json) -> None:
    on_nodes(p)
    for path in [path for path in k.answers if TRAINER in path]:
        del k.answers[path]


@fault("CRDs of JobSet", "failed", "no jobsets.jobset.x-k8s.io", "install JobSet")
def no_jobset(k: Kubernetes, p: Json) -> None:
    on_nodes(p)
    del k.answers["/apis/jobset.x-k8s.io/v1alpha2"]


@fault("Kubeflow Trainer", "failed", "is older than 2.2", "upgrade Kubeflow Trainer to 2.2")
def old_trainer(k: Kubernetes, p: Json) -> None:
    on_nodes(p)
    k.answers[f"/openapi/v3{TRAINER}"] = training_schemas("runtimeRef", "trainer", "podTemplateOverrides")


@fault("Kubeflow Trainer", "unknown", "its version is not seen", "kubectl explain trainjob")
def trainer_undescribed(k: Kubernetes, p: Json) -> None:
    on_nodes(p)
    del k.answers[f"/openapi/v3{TRAINER}"]


@fault("runtime lmmpress", "failed", "there is no such ClusterTrainingRuntime", "trainer.enabled in the chart's values")
def no_runtime(k: Kubernetes, p: Json) -> None:
    on_nodes(p)
    del k.answers[RUNTIME]


@fault("runtime of trainings", "unknown", "could not be looked at: HTTP 403", "kubectl auth can-i")
def runtime_unseen(k: Kubernetes, p: Json) -> None:
    on_nodes(p)
    k.answers[RUNTIME] = refusal(403, "clustertrainingruntimes is forbidden")


@fault("runtime lmmpress", "failed", "is being deleted", "kubectl get trainjobs")
def runtime_going(k: Kubernetes, p: Json) -> None:
    on_nodes(p)
    k.answers[RUNTIME]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"


@fault("runtime lmmpress", "failed", "is not for torch", "trainer.enabled")
def runtime_of_mpi(k: Kubernetes, p: Json) -> None:
    on_nodes(p)
    k.answers[RUNTIME]["spec"]["mlPolicy"] = {"numNodes": 1, "mpi": {}}


@fault("runtime lmmpress", "failed", "has no replicatedJob node with a container node", "trainer.enabled")
def runtime_without_nodes(k: Kubernetes, p: Json) -> None:
    on_nodes(p)
    k.answers[RUNTIME]["spec"]["template"]["spec"]["replicatedJobs"][0]["name"] = "launcher"


@fault("runtime lmmpress", "failed", "lacks the label trainer.kubeflow.org/trainjob-ancestor-step", "trainer.enabled")
def runtime_without_its_label(k: Kubernetes, p: Json) -> None:
    on_nodes(p)
    del k.answers[RUNTIME]["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["metadata"]


@fault("shared memory", "warning", "mostly 64Mi", "components.distill.shm")
def little_shared_memory(k: Kubernetes, p: Json) -> None:
    on_nodes(p, gpus=1, shm=None)


@fault("permissions of the pods", "failed", "may not create trainjobs.trainer.kubeflow.org, list pods", "--resource=")
def pods_may_not_train(k: Kubernetes, p: Json) -> None:
    on_nodes(p)
    k.denied_pods = {("create", "trainjobs"), ("list", "pods")}


@fault(
    "nodes for distill on 3 nodes", "failed", "each: 2 match, and take 2 of 3 pods at once", "components.distill.nodes"
)
def too_few_nodes(k: Kubernetes, p: Json) -> None:
    on_nodes(p, 3)
    set_nodes(k, node("gpu-1", gpus=7), node("gpu-2", gpus=4))
    k.answers["/api/v1/pods"] = listed()


@fault("nodes for distill on 2 nodes", "warning", "each: 2 match, with room for 1 of 2 pods now", "pods wait")
def too_few_nodes_now(k: Kubernetes, p: Json) -> None:
    on_nodes(p)
    k.answers["/api/v1/pods"] = listed(pod("a", "gpu-1", gpu="6"), pod("b", "gpu-2", gpu="1"))


@fault("quota team for distill on 2 nodes", "failed", "ask for 8, the quota is 4 in all", "kubectl edit resourcequota")
def quota_of_one_node(k: Kubernetes, p: Json) -> None:
    on_nodes(p)
    set_quota(k, {"requests.nvidia.com/gpu": "4"})


@fault(
    "quota team for distill on 2 nodes", "failed", "its 2 pods and the one that follows them ask for 3", "kubectl ed"
)
def quota_without_the_follower(k: Kubernetes, p: Json) -> None:
    on_nodes(p)
    set_quota(k, {"pods": "2"})


@fault("queue gpu-team-ads", "failed", "gives 4 nvidia.com/gpu; distill on 2 nodes asks for 8", "nominalQuota")
def queue_of_one_node(k: Kubernetes, p: Json) -> None:
    on_nodes(p)
    flavor = k.answers[f"{KUEUE}/clusterqueues/gpus"]["spec"]["resourceGroups"][0]["flavors"][0]
    flavor["resources"][2]["nominalQuota"] = "4"


@fault("queue gpu-team-ads", "failed", "gives 8 cpu; distill on 2 nodes asks for 12", "nominalQuota of cpu")
def queue_without_the_follower(k: Kubernetes, p: Json) -> None:
    on_nodes(p)
    flavor = k.answers[f"{KUEUE}/clusterqueues/gpus"]["spec"]["resourceGroups"][0]["flavors"][0]
    flavor["resources"][0]["nominalQuota"] = "8"
