"""The doctor's looks beyond Kubernetes: buckets and MLflow, from here and from a pod that a Job starts."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from minio.credentials import EnvAWSProvider
from support.findings import Json, findings
from support.kubernetes_api import HOME, Kubernetes, Raw, listed, named, refusal, secret
from support.mlflow_stub import REGISTRY, Mlflow
from support.plans import PLAN, PROFILE
from support.s3 import Proxy, answer, free_port, wait_for
from typer.testing import CliRunner

from lmmpress.cli.app import app
from lmmpress.doctor.inside import check_from_inside, manifest
from lmmpress.doctor.outside import Addresses, as_pods_see, check_buckets, check_mlflow
from lmmpress.doctor.reader import connect
from lmmpress.store.bucket import BucketObjects
from lmmpress.tasks.profile import Profile

INSIDE = PROFILE | {"kubeflow": {"namespace": "team-ads"}}


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("AWS_", "MLFLOW_", "MINIO_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("lmmpress.doctor.outside._PATIENCE", 0.2)


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mlflow]:
    stub = Mlflow()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stub.host)
    yield stub
    stub.stop()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubernetes]:
    server = Kubernetes()
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path)))
    monkeypatch.setattr("lmmpress.doctor.inside.PAUSE", 0.01)
    yield server
    server.stop()


def only(found: list[Any]) -> Any:
    (one,) = found
    return one


def test_a_store_is_written_read_written_on_condition_and_left_as_it_was(new_bucket: Callable[[], str]) -> None:
    address = new_bucket()
    one, keys = check_buckets(Addresses(store=address), here=True)
    assert (one.status, one.check) == ("ok", f"store {address}")
    assert "written on condition" in one.said
    assert keys.check == f"keys of {address}"
    assert list(BucketObjects(address.rpartition("/")[0]).entries("")) == []


def test_keys_that_may_do_everything_are_warned_of(new_bucket: Callable[[], str]) -> None:
    """The server of the tests lets everybody do everything."""
    address, other = new_bucket(), new_bucket().removeprefix("s3://").partition("/")[0]
    bucket = address.removeprefix("s3://").partition("/")[0]
    BucketObjects(f"s3://{bucket}").write("elsewhere/secret", b"{}", None)
    for here, whose in ((True, "the keys here"), (False, "they")):
        _, keys = check_buckets(Addresses(store=address), here)
        assert keys.status == "warning"
        assert keys.said.startswith(f"{whose} may also see the names of other buckets (")
        assert f"list all of bucket {bucket}, read outside of its prefix, write outside of its prefix" in keys.said
        assert f"lmmpress store policy {address}" in keys.mend
        assert ("--inside shows" in keys.mend) == here
    # a bucket that the plan names is no other, and where a whole bucket is the store nothing in it is outside
    whole = check_buckets(Addresses(store=f"s3://{bucket}", model=f"s3://{other}/model"), here=False)[1]
    assert other not in whole.said
    assert "outside" not in whole.said
    assert [entry.name for entry in BucketObjects(f"s3://{bucket}").entries("")] == ["elsewhere/secret"]
    # what lies on the way to a prefix is not outside of it
    deep = check_buckets(Addresses(store=f"s3://{bucket}/elsewhere/secret/store"), here=False)[1]
    assert "list all of bucket" in deep.said
    assert "read outside" not in deep.said


RIGHTS = {
    "s3:ListBucket": ("list-type=2", "GET"),
    "s3:PutObject": ("doctor/", "PUT"),
    "s3:DeleteObject": (".json HTTP", "DELETE"),
    "s3:AbortMultipartUpload": ("uploadId=", "DELETE"),
    "s3:ListMultipartUploadParts": ("uploadId=", "GET"),
    "s3:ListBucketMultipartUploads": ("uploads=", "GET"),
    "s3:GetObject": (".json HTTP", "GET"),
}


@pytest.mark.parametrize("right", RIGHTS)
def test_a_right_that_is_missing_is_named_and_nothing_is_left_behind(
    right: str, new_bucket: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = new_bucket()
    direct = os.environ["AWS_ENDPOINT_URL"]
    proxy = Proxy(direct)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    proxy.instead[RIGHTS[right]] = [answer("403 Forbidden", "AccessDenied") for _ in range(20)]
    one = only(check_buckets(Addresses(store=address), here=False))
    proxy.close()
    assert (one.status, one.said) == ("failed", f"the keys lack {right}")
    assert one.mend == f"lmmpress store policy {address} prints what they need: give it to their user"
    monkeypatch.setenv("AWS_ENDPOINT_URL", direct)
    assert [*BucketObjects(address).entries(""), *BucketObjects(address).leftovers()] == []


def test_model_and_data_are_read_where_a_plan_says(new_bucket: Callable[[], str]) -> None:
    address = new_bucket()
    asked = Addresses(model=f"{address}/antgmm", data=f"{address}/maad")
    found = check_buckets(asked, here=True)
    assert [(one.status, one.said) for one in found] == [
        ("failed", "there is no config.json"),
        ("failed", "there is no metadata.jsonl"),
    ]
    assert f"put it there: {address}/antgmm/config.json" in found[0].mend
    for name in ("antgmm/config.json", "maad/metadata.jsonl"):
        BucketObjects(address).write(name, b"{}", None)
    assert [one.status for one in check_buckets(asked, here=True)] == ["ok", "ok"]


@pytest.mark.parametrize(("right", "word"), [("s3:ListBucket", "list-type=2"), ("s3:GetObject", "/config.json HTTP")])
def test_a_right_that_is_missing_to_read_is_named(
    right: str, word: str, new_bucket: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = new_bucket()
    BucketObjects(address).write("config.json", b"{}", None)
    proxy = Proxy(os.environ["AWS_ENDPOINT_URL"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    proxy.instead[word, "GET"] = [answer("403 Forbidden", "AccessDenied") for _ in range(20)]
    one = only(check_buckets(Addresses(model=address), here=False))
    proxy.close()
    assert (one.status, one.said) == ("failed", f"the keys lack {right}")
    assert f"lmmpress store policy STORE --read {address}" in one.mend


S3_FAULTS = [
    (("403 Forbidden", "AccessDenied"), "lack s3:ListBucket, s3:PutObject, s3:DeleteObject", "lmmpress store policy"),
    (("403 Forbidden", "SignatureDoesNotMatch"), "the credentials are not accepted", "keys of secrets.store"),
    (("404 Not Found", "NoSuchBucket"), "there is no such bucket", "make it, or name another"),
    (("507 Insufficient Storage", "XMinioStorageFull"), "no space left", "secrets.store"),
    (("503 Service Unavailable", "SlowDown"), "the server answers SlowDown", "tried for"),
    (("501 Not Implemented", "NotImplemented"), "the server answers NotImplemented", "secrets.store"),
]


@pytest.mark.parametrize(("told", "said", "mend"), S3_FAULTS, ids=[told[1] for told, _, _ in S3_FAULTS])
def test_what_a_bucket_refuses_is_told_with_what_mends_it(
    told: tuple[str, str], said: str, mend: str, new_bucket: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = new_bucket()
    proxy = Proxy(os.environ["AWS_ENDPOINT_URL"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    proxy.answers = [answer(*told) for _ in range(200)]
    one = only(check_buckets(Addresses(store=address), here=True))
    proxy.close()
    assert one.status == "failed"
    assert said in one.said
    assert mend in one.mend


def test_a_server_that_overlooks_conditions_is_none_for_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    held: dict[str, bytes] = {}
    heeds: set[str] = set()

    class Careless(BaseHTTPRequestHandler):
        wbufsize = -1

        def do_PUT(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            if "If-None-Match" in heeds and self.headers.get("If-None-Match") and self.path in held:
                return self._send(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            held[self.path] = data
            self._send(200, b"")

        def do_GET(self) -> None:
            missing = b"<Error><Code>NoSuchKey</Code></Error>"
            self._send(200 if self.path in held else 404, held.get(self.path, missing))

        def do_DELETE(self) -> None:
            held.pop(self.path, None)
            self._send(204, b"")

        def _send(self, status: int, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("ETag", f'"{hash(data)}"')
            self.send_header("Last-Modified", self.date_time_string())
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Careless)
    threading.Thread(target=lambda: server.serve_forever(0.05), daemon=True).start()
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}"),
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
    ):
        monkeypatch.setenv(name, value)
    for overlooked in ("If-None-Match", "If-Match"):
        one = only(check_buckets(Addresses(store="s3://bucket/store"), here=True))
        assert one.status == "failed"
        assert f"overwrites what {overlooked} forbids" in one.said
        assert "a server with conditional writes" in one.mend
        assert not held  # removed again
        heeds.add(overlooked)
    server.shutdown()
    server.server_close()


def test_what_cannot_be_tried_from_here_is_unknown_and_from_a_pod_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Addresses(store="s3://models/store")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://s3.storage.svc.cluster.local:9000")
    # what asks the network for a role is not asked
    monkeypatch.setattr("lmmpress.store.connection.IamAwsProvider", lambda http_client: EnvAWSProvider())
    one = only(check_buckets(asked, here=True))
    assert (one.status, one.said) == ("unknown", "no credentials here to try it with")
    assert "there are no credentials" in only(check_buckets(asked, here=False)).said
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    one = only(check_buckets(asked, here=True))
    assert (one.status, one.mend) == ("unknown", "--inside tries it from a pod")
    assert only(check_buckets(asked, here=False)).status == "failed"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.lmmpress.svc.cluster.local:5000")
    assert only(check_mlflow(here=True)).status == "unknown"
    one = only(check_mlflow(here=False))
    assert (one.status, one.mend) == ("failed", "check MLFLOW_TRACKING_URI; is the server up?")


MLFLOW_FAULTS: dict[str, tuple[dict[str, tuple[int, str]], str, str]] = {
    "hosts": (
        {REGISTRY: (403, "Invalid Host header - possible DNS rebinding attack detected")},
        "refuses requests to the host name 127.0.0.1:",
        "MLFLOW_SERVER_ALLOWED_HOSTS=127.0.0.1:",
    ),
    "user": ({REGISTRY: (401, "You are not authenticated")}, "HTTP 401: it requires a user", "secrets.mlflow"),
    "old": ({"/version": (200, "2.22.1")}, "MLflow 2.22.1: logged models came with 3.0", "upgrade the server"),
    "files": ({REGISTRY: (500, "not supported")}, "its registry answers with HTTP 500", "--backend-store-uri"),
    "down": ({"/health": (503, "no")}, "its health check answers with HTTP 503", "kubectl logs"),
    "page": ({"/version": (200, "<html>")}, "reports no version of MLflow", "the root of an MLflow server"),
    "login": ({REGISTRY: (200, "<html>log in")}, "does not answer with JSON", "a login page in front of it"),
}


@pytest.mark.parametrize("broken", MLFLOW_FAULTS)
def test_what_is_wrong_with_mlflow_is_told_with_what_mends_it(broken: str, mlflow: Mlflow) -> None:
    answers, said, mend = MLFLOW_FAULTS[broken]
    mlflow.answers |= answers
    one = only(check_mlflow(here=False))
    assert one.status == "failed"
    assert said in one.said
    assert mend in one.mend


def test_mlflow_is_asked_as_its_client_asks_and_no_password_is_repeated(
    mlflow: Mlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert only(check_mlflow(here=True)).said == "MLflow 3.17.2, its registry answers"
    assert not any("Authorization" in headers for headers in mlflow.headers)
    mlflow.answers[REGISTRY] = (401, "who are you?")
    assert only(check_mlflow(here=True)).status == "unknown"
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "u")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hidden")
    one = only(check_mlflow(here=True))
    assert (one.status, one.said) == ("failed", "HTTP 401: the user or token is not accepted")
    assert mlflow.headers[-1]["Authorization"].startswith("Basic ")
    assert "hidden" not in f"{one}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.host.replace("//", "//u:hidden@"))
    assert "hidden" not in f"{only(check_mlflow(here=True))}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert "pods share no file" in only(check_mlflow(here=True)).said


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.dictionaries(
        st.sampled_from(["/health", "/version", REGISTRY]),
        st.tuples(
            st.sampled_from([200, 204, 301, 400, 401, 403, 404, 500]),
            st.text(st.characters(codec="utf-8"), max_size=30)
            | st.sampled_from(["[" * 9999, "{}", "null", "3.1", "9.9"]),
        ),
    )
)
def test_no_answer_of_mlflow_ends_in_a_traceback(mlflow: Mlflow, answers: dict[str, tuple[int, str]]) -> None:
    mlflow.answers = dict(answers)
    one = only(check_mlflow(here=False))
    assert one.status in ("ok", "failed")
    assert one.mend or one.status == "ok"


@pytest.mark.long
def test_a_real_server_of_mlflow_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    command += ["--workers", "1", "--host", "127.0.0.1", "--port", str(port), "--allowed-hosts", "localhost:*"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, **quiet)
    try:
        wait_for(f"http://localhost:{port}/health", 300)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://localhost:{port}")
        one = only(check_mlflow(here=True))
        assert one.status == "ok", one
        assert re.match(r"MLflow \d+\.\d+", one.said)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        one = only(check_mlflow(here=True))
        assert one.status == "failed"
        assert f"MLFLOW_SERVER_ALLOWED_HOSTS=127.0.0.1:{port}" in one.mend
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(timeout=30)


def test_the_environment_of_pods_is_taken_where_ones_own_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://here")
    before = dict(os.environ)
    with as_pods_see({"MLFLOW_TRACKING_URI": "http://there", "AWS_ENDPOINT_URL": "http://s3"}):
        assert os.environ["MLFLOW_TRACKING_URI"] == "http://here"
        assert os.environ["AWS_ENDPOINT_URL"] == "http://s3"
    assert dict(os.environ) == before


def as_kubelet(cluster: Kubernetes, own: dict[str, str] | None = None) -> Callable[[Json], None]:
    """Run the container of a Job as a process, with its environment and what its Secrets hold, and note its log."""

    def start(job: Json) -> None:
        spec = job["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        for one in container["env"]:
            if "value" in one:
                environment[one["name"]] = one["value"]
            else:
                reference = one["valueFrom"]["secretKeyRef"]
                data = cluster.answers[f"{HOME}/secrets/{reference['name']}"]["data"][reference["key"]]
                environment[one["name"]] = b64decode(data).decode()
        python, *arguments = container["command"]
        assert python == "python3"
        done = subprocess.run(
            [sys.executable, *arguments],
            env=environment | (own or {}),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=600,
        )
        phase = "Succeeded" if done.returncode == 0 else "Failed"
        ended(cluster, phase, done.stdout + done.stderr)

    return start


def ended(cluster: Kubernetes, phase: str, log: str, **status: Any) -> None:
    cluster.answers[f"{HOME}/pods"] = listed(named("doctor-x", status={"phase": phase} | status))
    cluster.answers[f"{HOME}/pods/doctor-x/log"] = Raw(200, log.encode(), "text/plain")


def test_from_inside_a_pod_with_the_secrets_tries_bucket_and_mlflow(
    cluster: Kubernetes, mlflow: Mlflow, new_bucket: Callable[[], str], s3_server: Any, tmp_path: Path
) -> None:
    address = new_bucket()
    keys = {"AWS_ACCESS_KEY_ID": s3_server.access_key, "AWS_SECRET_ACCESS_KEY": s3_server.secret_key}
    held = secret("lmmpress-store") | {"data": {key: b64encode(keys[key].encode()).decode() for key in keys}}
    cluster.answers[f"{HOME}/secrets/lmmpress-store"] = held
    cluster.on_job = as_kubelet(cluster)
    inner = {"AWS_ENDPOINT_URL": s3_server.endpoint, "MLFLOW_TRACKING_URI": mlflow.host}
    plan, profile = PLAN | {"model": "/data/antgmm", "store": address}, INSIDE | {"environment": inner}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan), "utf-8")
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(profile), "utf-8")
    command = ["doctor", "--cluster", str(tmp_path / "cluster.yaml"), "--plan", str(tmp_path / "plan.yaml")]
    found = CliRunner().invoke(app, [*command, "--inside", "--json"])
    told = {one["check"]: one for one in findings(found)}
    assert told["permission to look inside"]["status"] == "ok"
    assert told[f"inside: store {address}"]["status"] == "ok", told
    assert told[f"inside: MLflow {mlflow.host}"]["said"] == "MLflow 3.17.2, its registry answers"
    assert any("Basic" in headers.get("Authorization", "") for headers in mlflow.headers)
    assert found.exit_code == 0
    assert cluster.jobs == {}
    assert s3_server.secret_key not in found.stdout


def test_what_runs_inside_needs_nothing_that_an_image_lacks() -> None:
    code = "import sys, lmmpress.doctor.outside; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8"
    ).stdout.split()
    assert "lmmpress.doctor.outside" in loaded
    assert {"kubernetes", "kfp", "torch", "mlflow"}.isdisjoint(loaded)


def test_the_job_is_one_that_restricted_namespaces_take_and_holds_no_secret() -> None:
    job = manifest(Profile.model_validate(INSIDE), Addresses(store="s3://b/s"))
    spec = job["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert (job["spec"]["backoffLimit"], spec["restartPolicy"]) == (0, "Never")
    assert spec["serviceAccountName"] == "lmmpress"
    assert spec["nodeSelector"] == {"pool": "gpu"}
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpu-team-ads"
    named_only = [one for one in container["env"] if re.search("KEY|PASSWORD|SECRET", one["name"])]
    assert len(named_only) == 3
    assert all(set(one) == {"name", "valueFrom"} for one in named_only)


JOBS = f"/apis/batch/v1{HOME.removeprefix('/api/v1')}/jobs"
STUCK: dict[str, tuple[Callable[[Kubernetes], Any], str, str]] = {
    "refused": (
        lambda k: k.answers.update({JOBS: refusal(403, "exceeded quota: team")}),
        "the Job is refused: HTTP 403: exceeded quota: team",
        "kubectl auth can-i create jobs -n team-ads",
    ),
    "image": (
        lambda k: ended(
            k,
            "Pending",
            "",
            containerStatuses=[{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "unauthorized"}}}],
        ),
        "ImagePullBackOff: unauthorized",
        "pull_secrets",
    ),
    "node": (
        lambda k: ended(k, "Pending", "", conditions=[{"reason": "Unschedulable", "message": "0/2 nodes"}]),
        "no node takes the pod: 0/2 nodes",
        "kubectl describe job",
    ),
    "old image": (
        lambda k: ended(k, "Failed", "python3: No module named lmmpress.doctor"),
        "older than this lmmpress",
        "build the image",
    ),
    "crash": (lambda k: ended(k, "Failed", "Killed\n\n"), "the pod failed: Killed", "run the image by hand"),
}


@pytest.mark.parametrize("broken", STUCK)
def test_why_a_pod_tells_nothing_is_told(broken: str, cluster: Kubernetes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmmpress.doctor.inside.SECONDS", 0.3)
    change, said, mend = STUCK[broken]
    change(cluster)
    one = only(check_from_inside(Profile.model_validate(INSIDE), connect(), Addresses()))
    assert (one.check, one.status) == ("inside", "failed")
    assert said in one.said
    assert mend in one.mend
    assert cluster.jobs == {}


def test_nothing_is_started_by_whom_it_is_not_allowed(cluster: Kubernetes, mlflow: Mlflow, tmp_path: Path) -> None:
    cluster.denied = {("create", "jobs")}
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(INSIDE), "utf-8")
    found = CliRunner().invoke(app, ["doctor", "--cluster", str(tmp_path / "cluster.yaml"), "--inside", "--json"])
    assert found.exit_code == 1
    told = [one for one in findings(found) if one["status"] == "failed"]
    assert [one["check"] for one in told] == ["permission to look inside"]
    assert not [path for method, path in cluster.asked if method == "POST" and path.endswith("/jobs")]
    assert "--plan PLAN.yaml" in json.dumps(findings(found))  # no plan says which bucket
