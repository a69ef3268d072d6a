"""The trigger's pod: its files as Kubernetes mounts them, read by the trigger itself, and the pod of `helm test`."""

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from starlette.routing import Route
from support.chart import CASES, Object, containers, one, parsed, pods, render, render_text
from support.s3 import free_port, wait_for
from support.trigger_server import Runs, Versions, settings_of, trigger_of

from lmmpress.trigger.server.metrics import Metrics
from lmmpress.trigger.server.service import Service
from lmmpress.trigger.settings import EngineName, TriggerSettings, read_settings
from lmmpress.trigger.trigger import plan_in, profile_in

NAME = "press-lmmpress-trigger"
IN_BOTH = pytest.mark.parametrize("case", ["trigger", "trigger-argo"])


def mount(objects: list[Object], folder: Path) -> Path:
    """The files of the volume `settings`, with a made-up value for every key of a Secret; the settings file."""
    (volume,) = (one for one in pods(objects)[NAME]["spec"]["volumes"] if one["name"] == "settings")
    for source in volume["projected"]["sources"]:
        if "configMap" in source:
            data = one(objects, "ConfigMap", source["configMap"]["name"])["data"]
            files = {item["path"]: data[item["key"]] for item in source["configMap"]["items"]}
        else:
            files = {item["path"]: f"{item['key']:x>40}\n" for item in source["secret"]["items"]}
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, "utf-8")
    return folder / "trigger.yaml"


def settings(case: str, folder: Path) -> TriggerSettings:
    return read_settings(mount(render(case), folder))


@IN_BOTH
def test_the_trigger_reads_its_settings_its_plans_and_its_profiles(case: str, tmp_path: Path) -> None:
    found = settings(case, tmp_path)
    assert (found.store, found.tracking) == (
        "s3://lmmpress/store",
        "http://press-lmmpress-mlflow.team.svc.cluster.local:5000",
    )
    engine = EngineName.argo if case == "trigger-argo" else EngineName.kubeflow
    for allowed in found.models["antgmm"].plans.values():
        assert allowed.engine is engine
        assert allowed.cluster is not None
        assert str(plan_in(allowed.plan).store).startswith("s3://lmmpress/store"), "which a pod reaches"
        profile = profile_in(allowed.cluster)
        assert profile.environment["MLFLOW_TRACKING_URI"] == found.tracking
        assert profile.service_account == "press-lmmpress-pipeline"
    for secret in (*found.server.tokens, *found.server.webhook_secrets):
        assert secret.file is not None
        assert secret.file.is_file()


def test_the_page_has_the_secrets_of_its_sessions_and_of_its_sign_in(tmp_path: Path) -> None:
    page = settings("trigger", tmp_path).server.page
    assert page.oidc is not None
    for secret in (page.session_secret, page.oidc.client_secret):
        assert secret is not None
        assert secret.file is not None
        assert secret.file.is_file()


def test_each_plan_has_its_own_profile_and_kubeflows_address_for_pods(tmp_path: Path) -> None:
    plans = settings("trigger", tmp_path).models["antgmm"].plans
    assert plans["usual"].cluster is not None
    assert plans["small"].cluster is not None
    usual, small = profile_in(plans["usual"].cluster), profile_in(plans["small"].cluster)
    assert (usual.pod("distill").gpus, small.pod("distill").gpus) == (1, 1)
    assert small.components.keys() == {"distill"}
    for profile in (usual, small):
        assert profile.kubeflow.host == "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
        assert profile.kubeflow.ui == "https://kubeflow.example.org/pipeline", "links are for people"
    # the profile for people stays as it is
    data = one(render("trigger"), "ConfigMap", "press-lmmpress-cluster")["data"]
    assert yaml.safe_load(data["cluster.yaml"])["kubeflow"]["host"] == "https://kubeflow.example.org/pipeline"


def test_no_secret_is_in_its_configmap_or_its_variables() -> None:
    objects = render("trigger")
    text = json.dumps(one(objects, "ConfigMap", NAME)["data"])
    assert "secrets/webhook" in text
    assert not [name for name in ("trigger-tokens", "trigger-webhook") if name in text]
    for pod in (NAME, "press-lmmpress-check-trigger"):
        for container in containers(pods(objects)[pod]):
            assert not [
                variable["name"]
                for variable in container["env"]
                if "valueFrom" in variable and not variable["name"].startswith("AWS_")
            ]


def test_it_has_more_time_to_stop_than_it_takes(tmp_path: Path) -> None:
    stop = settings("trigger", tmp_path).server.stop_seconds
    spec = pods(render("trigger"))[NAME]["spec"]
    assert (stop, spec["terminationGracePeriodSeconds"]) == (30, 75)
    assert pods(render("trigger-argo"))[NAME]["spec"]["terminationGracePeriodSeconds"] == 55


def test_a_changed_setting_restarts_the_pods() -> None:
    def annotation(values: Object) -> str:
        pod = pods(parsed(render_text(values)))[NAME]
        return str(pod["metadata"]["annotations"]["lmmpress/settings"])

    values = CASES["trigger-argo"][0]
    before = annotation(values)
    assert annotation(values | {"commonLabels": {"team": "ads"}}) == before
    assert annotation(values | {"profile": {"ttl": 7}}) != before
    changed = values["trigger"]["settings"] | {"server": {"reconcile_seconds": 30}}
    assert annotation(values | {"trigger": values["trigger"] | {"settings": changed}}) != before


def test_mlflow_may_deliver_and_keeps_its_key() -> None:
    def variables(case: str) -> dict[str, Object]:
        (container,) = pods(render(case))["press-lmmpress-mlflow"]["spec"]["containers"]
        return {variable["name"]: variable for variable in container["env"]}

    found = variables("trigger-argo")
    assert found["MLFLOW_WEBHOOK_ALLOWED_SCHEMES"]["value"] == "http,https"
    assert found["MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS"]["value"] == "true"
    source = found["MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"]["valueFrom"]["secretKeyRef"]
    secret = one(render("trigger-argo"), "Secret", source["name"])
    key = base64.b64decode(secret["data"][source["key"]])
    from cryptography.fernet import Fernet

    assert Fernet(key).decrypt(Fernet(key).encrypt(b"a secret")) == b"a secret"
    own = variables("trigger")["MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"]["valueFrom"]["secretKeyRef"]
    assert own == {"name": "mlflow-webhooks", "key": "fernet"}
    assert not [name for name in variables("minimal") if "WEBHOOK" in name]


def paths_of(routes: Iterable[object]) -> set[str]:
    """The paths of an application's routes; newer FastAPI keeps those of an included router in the router."""
    found: set[str] = set()
    for route in routes:
        if isinstance(route, Route):
            found.add(route.path)
        elif (router := getattr(route, "original_router", None)) is not None:
            found |= paths_of(router.routes)
    return found


def test_from_outside_everything_is_reached_but_probes_and_metrics(tmp_path: Path) -> None:
    from lmmpress.trigger.server.app import routes

    service = Service(trigger_of(settings_of(tmp_path), Versions(), Runs()), Metrics())
    served = paths_of(routes(service).routes)
    inside = {"/healthz", "/readyz", "/metrics"}
    assert inside < served
    (ingress,) = one(render("trigger"), "Ingress", NAME)["spec"]["rules"]
    routed = [rule["matches"][0]["path"] for rule in one(render("trigger"), "HTTPRoute", NAME)["spec"]["rules"]]
    for paths in (
        [(found["pathType"] == "Prefix", found["path"]) for found in ingress["http"]["paths"]],
        [(found["type"] == "PathPrefix", found["value"]) for found in routed],
    ):
        reached = {
            path
            for path in served
            for below, found in paths
            if path == found or (below and f"{path}/".startswith(f"{found.rstrip('/')}/"))
        }
        assert reached == served - inside


def test_helms_test_asks_the_server_and_checks_everything(tmp_path: Path) -> None:
    """The server and the script as in their pods, with a directory as the store, and no MLflow."""
    objects = render("trigger")
    script = one(objects, "ConfigMap", "press-lmmpress-scripts")["data"]["check_trigger.py"]
    port = free_port()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "MLFLOW_", "KFP_"))}
    environment |= {
        "LMMPRESS_TRIGGER_SETTINGS": str(mount(objects, tmp_path / "etc")),
        "LMMPRESS_TRIGGER__STORE": str(tmp_path / "store"),
        "LMMPRESS_TRIGGER__TRACKING": f"http://127.0.0.1:{free_port()}",
        "LMMPRESS_TRIGGER__SERVER__HOST": "127.0.0.1",
        "LMMPRESS_TRIGGER__SERVER__PORT": str(port),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "ADDRESS": f"http://127.0.0.1:{port}",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }

    def checked() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", script],
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
            timeout=300,
        )

    nobody = checked()
    assert nobody.returncode == 1
    assert "/readyz: " in nobody.stderr
    (container,) = pods(objects)[NAME]["spec"]["containers"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(["lmmpress", *container["args"]], env=environment, stdout=log, stderr=log)
    try:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            wait_for(f"http://127.0.0.1:{port}{container[probe]['httpGet']['path']}")
        done = checked()
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=120) == 0, "it stops by itself"
    assert '"status":"ok"' in done.stdout.replace(" ", "")
    assert done.returncode == 1, "there is no MLflow"
    assert "writes on condition" in done.stdout
    assert "MLflow" in done.stdout
    for line in (tmp_path / "log").read_text("utf-8").splitlines():
        assert json.loads(line)["event"]
