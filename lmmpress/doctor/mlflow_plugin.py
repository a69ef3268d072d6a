"""Checks Kubeflow's MLflow plugin where it is set up: may it call MLflow, into which experiment, and did it work.

Where MLflow refuses the plugin, Kubeflow runs the pipeline without it and says so in the run's own record only.
"""

import json
from urllib.parse import urlsplit

import urllib3

from lmmpress.doctor.finding import Finding, ok, unknown, warning
from lmmpress.doctor.pod_demands import home
from lmmpress.doctor.policies import NAME_LABEL, may_enter
from lmmpress.kubeflow.submit import token
from lmmpress.pods.cluster_reader import Cluster, Node, UnseenError, at, mapping, mappings, text
from lmmpress.tasks.cluster_profile import Engine, Kubeflow, Profile

NAME = "Kubeflow's MLflow plugin"
USUAL = "KFP-Default"
"""The plugin's experiment where nothing names one."""
_KEY = "plugins.mlflow"


def check_plugin(profile: Profile, cluster: Cluster) -> list[Finding]:
    """Check the plugin if it is set up for this namespace; nothing otherwise."""
    if profile.engine is not Engine.kubeflow:
        return []
    namespace, system = home(profile), profile.kubeflow.system
    server = cluster.named(f"/apis/apps/v1/namespaces/{system}/deployments/ml-pipeline")
    given = _server_settings(server, system, cluster)
    launcher = cluster.named(f"/api/v1/namespaces/{namespace}/configmaps/kfp-launcher")
    own = _document(at(launcher, "data", _KEY))
    if not given and not own:
        return []
    found = [
        *_one_user(profile, given, own),
        *_experiment(profile, given, own),
        *_refused(text(given.get("endpoint")), server, profile, cluster),
        *_last_run(profile.kubeflow),
    ]
    said = text(given.get("endpoint")) or "set up in kfp-launcher; the API server's config.json was not found"
    return found or [ok(NAME, said)]


def _server_settings(server: Node | None, system: str, cluster: Cluster) -> Node:
    """What the API server's config.json says of the plugin, if a ConfigMap holds that file."""
    for volume in mappings(at(server, "spec", "template", "spec", "volumes")):
        name = text(at(volume, "configMap", "name"))
        if not name:
            continue
        data = mapping(at(cluster.named(f"/api/v1/namespaces/{system}/configmaps/{name}"), "data"))
        for written in data.values():
            if settings := mapping(at(_document(written), "plugins", "mlflow")):
                return settings
    return {}


def _document(written: object) -> Node:
    try:
        return mapping(json.loads(text(written)))
    except (ValueError, RecursionError):
        return {}


def _single(profile: Profile) -> bool:
    """Whether Kubeflow has one user only: then pipelines run in its own namespace."""
    return home(profile) == profile.kubeflow.system


def _one_user(profile: Profile, given: Node, own: Node) -> list[Finding]:
    if not _single(profile) or not own or given:
        return []
    said = "with one user Kubeflow reads nothing of the plugin from the ConfigMap kfp-launcher"
    return [warning(NAME, said, f"{_KEY} with endpoint and settings in config.json of ml-pipeline")]


def _experiment(profile: Profile, given: Node, own: Node) -> list[Finding]:
    """Pipelines run in the plugin's experiment: with one user that is config.json's, else that of the namespace."""
    by_server, by_namespace = (text(at(one, "settings", "defaultExperimentName")) for one in (given, own))
    single = _single(profile)
    chosen = (by_server if single else by_namespace or by_server) or USUAL
    wanted = profile.environment.get("MLFLOW_EXPERIMENT_NAME") or profile.kubeflow.experiment
    if chosen == wanted or (single and not given):
        return []
    place = "config.json of ml-pipeline" if single else "the ConfigMap kfp-launcher"
    said = f"its MLflow runs are in experiment {chosen}, and not in {wanted}"
    if single and by_namespace:
        said += ": with one user Kubeflow reads the name from config.json only"
    return [warning(NAME, said, f"{_KEY}.settings.defaultExperimentName: {wanted} in {place}")]


def _refused(endpoint: str, server: Node | None, profile: Profile, cluster: Cluster) -> list[Finding]:
    """Whether policies keep Kubeflow's API server from an MLflow in the cluster."""
    address = urlsplit(endpoint)
    parts = (address.hostname or "").split(".")
    service, namespace = parts[0], parts[1] if len(parts) > 1 else profile.kubeflow.system
    if not service or (len(parts) > 2 and parts[2] != "svc"):
        return []
    system = profile.kubeflow.system
    try:
        target = mapping(at(cluster.named(f"/api/v1/namespaces/{namespace}/services/{service}"), "spec", "selector"))
        source = mapping(at(server, "spec", "template", "metadata", "labels"))
        labels = mapping(at(cluster.find(f"/api/v1/namespaces/{system}"), "metadata", "labels")) | {NAME_LABEL: system}
        if not target or may_enter(cluster, namespace, target, source, labels, address.port or 80):
            return []
    except UnseenError as error:
        return [
            unknown(NAME, f"whether {endpoint} lets it in could not be seen: {error}", "networkPolicy.mlflowClients")
        ]
    said = f"the NetworkPolicies of {namespace} keep Kubeflow's API server from {endpoint}: pipelines run without it"
    mend = "kubeflow.mlflowPlugin.byHand=true in the chart's values, which lets it be a client of MLflow"
    return [warning(NAME, said, mend)]


def _last_run(kubeflow: Kubeflow) -> list[Finding]:
    """Whether the newest run that the plugin took part in says that it failed."""
    if not kubeflow.host:
        return []
    query = f"page_size=20&sort_by=created_at%20desc&namespace={kubeflow.namespace or ''}"
    url = f"{kubeflow.host.rstrip('/')}/apis/v2beta1/runs?{query}"
    bearer = token()
    pool = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(5, read=15), ca_certs=kubeflow.ca)
    try:
        answer = pool.request("GET", url, headers={"Authorization": f"Bearer {bearer}"} if bearer else {})
    except (urllib3.exceptions.HTTPError, OSError, ValueError):
        return []  # the check of Kubeflow's API says it
    for run in mappings(_document(answer.data.decode("utf-8", "replace")).get("runs")):
        output = at(run, "plugins_output", "mlflow")
        if text(at(output, "state")) == "PLUGIN_FAILED":
            why = text(at(output, "state_message")) or "no reason is given"
            mend = "the reason is MLflow's or the network's: lmmpress doctor --inside, and the log of ml-pipeline"
            return [warning(NAME, f"the newest run went on without it: {why}", mend)]
        if output:
            return []
    return []
