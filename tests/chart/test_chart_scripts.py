"""The files that the hook and `helm test` run, as they are in the pods: S3, PostgreSQL, MLflow and users of MinIO."""

import copy
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import certifi
import pytest
import trustme
from support.chart import containers, one, pod_environment, pods, render, run_script, unavailable
from support.minio_users import MinioUsers
from support.paths import ROOT
from support.postgresql import postgresql, programs
from support.s3 import MiniStack, Proxy, answer, free_port, wait_for

from lmmpress.store.connection import connect
from lmmpress.store.rights import Place, policy


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MiniStack]:
    folder = tmp_path_factory.mktemp("chart-s3") / "data"
    folder.mkdir()
    server = MiniStack(folder, free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def mlflow_server(s3: MiniStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """MLflow as the chart starts it: with the arguments and environment of its pod, after files/migrate.py, on
    PostgreSQL and the S3 server. Only the addresses differ, and the number of its processes, which is one."""
    bin = programs()
    if bin is None:
        unavailable("PostgreSQL's server is not installed: apt-get install postgresql")
    pod = pods(render("minimal"))["press-lmmpress-mlflow"]["spec"]
    port = free_port()
    arguments = pod["containers"][0]["args"]
    for flag, value in (("--host", "127.0.0.1"), ("--port", str(port)), ("--workers", "1")):
        arguments[arguments.index(flag) + 1] = value
    folder = tmp_path_factory.mktemp("chart-mlflow")
    with postgresql(bin, "mlflow", "a password", "mlflow") as database:
        environment = pod_environment("lmmpress-mlflow", s3.endpoint, s3, MLFLOW_S3_ENDPOINT_URL=s3.endpoint)
        address = environment["MLFLOW_BACKEND_STORE_URI"]
        assert address == "postgresql+psycopg2://mlflow@press-lmmpress-postgresql:5432/mlflow"
        environment["MLFLOW_BACKEND_STORE_URI"] = re.sub("@[^/]+", f"@127.0.0.1:{database}", address)
        done = run_script("migrate", environment)
        assert done.returncode == 0, done.stdout + done.stderr
        with (folder / "log").open("wb") as log:
            command = [sys.executable, "-m", "mlflow", *arguments]
            server = subprocess.Popen(
                command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True
            )
        try:
            wait_for(f"http://127.0.0.1:{port}/health")
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(server.pid, signal.SIGKILL)  # the server and its workers, which are a group of their own
            server.wait(timeout=30)


@pytest.mark.long
def test_the_hook_makes_what_is_missing_and_nothing_else(
    s3: MiniStack, mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    environment = pod_environment("-prepare", s3.endpoint, s3, MLFLOW_TRACKING_URI=mlflow_server, PREPARE_TIMEOUT="60")
    first = run_script("prepare", environment)
    assert first.returncode == 0, first.stdout + first.stderr
    assert re.sub(r"\d+\n", "N\n", first.stdout).splitlines() == [
        "bucket lmmpress made",
        "bucket mlflow made",
        "experiment lmmpress made: N",
    ]
    again = run_script("prepare", environment)
    assert again.returncode == 0
    assert again.stdout == first.stdout.replace("made:", "is there:").replace("made", "is there")

    # the pods of `helm test`, with nothing but what their own environment says
    check = pod_environment("check-store", s3.endpoint, s3)
    done = run_script("check_store", check)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    for key in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, check[key])
    assert not list(connect().list_objects(bucket_name="lmmpress", recursive=True)), "nothing is left"
    check = pod_environment("check-mlflow", s3.endpoint, s3, MLFLOW_TRACKING_URI=mlflow_server)
    done = run_script("check_mlflow", check)
    assert done.returncode == 0, done.stdout + done.stderr
    client = MlflowClient(mlflow_server)
    experiment = client.get_experiment_by_name("lmmpress")
    assert experiment is not None
    assert not client.search_runs([experiment.experiment_id])

    # an experiment that someone deleted is the same one afterwards
    client.delete_experiment(experiment.experiment_id)
    assert run_script("prepare", environment).returncode == 0
    restored = client.get_experiment_by_name("lmmpress")
    assert restored is not None
    assert (restored.experiment_id, restored.lifecycle_stage) == (experiment.experiment_id, "active")


@pytest.mark.long
def test_mlflow_answers_by_the_names_of_its_service_and_no_other(mlflow_server: str) -> None:
    import urllib3

    def asked(host: str) -> int:
        address = f"{mlflow_server}/api/2.0/mlflow/experiments/search?max_results=1"
        return int(urllib3.request("GET", address, headers={"Host": host}).status)

    service = "press-lmmpress-mlflow"
    for host in (service, f"{service}.team", f"{service}.team.svc", f"{service}.team.svc.cluster.local"):
        assert asked(f"{host}:5000") == 200, host
    assert asked("localhost:5000") == 200, "by a port-forward"
    assert asked("mlflow.example.org") == 403


DATABASE_FAULTS: dict[str, tuple[dict[str, str], str]] = {
    "a wrong password": (
        {"PGPASSWORD": "wrong"},
        "the user's password in Secret press-lmmpress-postgresql, key password",
    ),
    "an unknown user": ({"user": "somebody"}, "postgresql.username"),
    "an unknown database": ({"database": "other"}, "postgresql.database"),
    "no file of an authority": (
        {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": "/ca/ca.crt"},
        "ca.existingConfigMap, or postgresql.external.sslMode=require",
    ),
    "another authority": (
        {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": certifi.where()},
        "the server's authority has to be in the ConfigMap of ca.existingConfigMap",
    ),
    "another name": ({"PGSSLMODE": "verify-full", "PGSSLROOTCERT": "its own"}, "postgresql.external.sslMode=verify-ca"),
}


def test_a_fault_of_the_database_that_stays_ends_at_once_with_what_mends_it(tmp_path: Path) -> None:
    bin = programs()
    if bin is None:
        unavailable("PostgreSQL's server is not installed: apt-get install postgresql")
    login = containers(pods(render("minimal"))["press-lmmpress-mlflow"])[0]["env"][-1]

    def last_line(changes: dict[str, str], port: int) -> str:
        user, database = changes.get("user", "mlflow"), changes.get("database", "mlflow")
        address = f"postgresql+psycopg2://{user}@127.0.0.1:{port}/{database}"
        environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": address, "PGPASSWORD": "a password"}
        done = run_script("migrate", environment | {login["name"]: login["value"]} | changes)
        assert done.returncode == 1
        assert "trying again" not in done.stdout
        return done.stderr.splitlines()[-1]

    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    with postgresql(bin, "mlflow", "a password", "mlflow", authority.issue_cert("db.example.org")) as port:
        for name, (changes, mend) in DATABASE_FAULTS.items():
            own = {"PGSSLROOTCERT": str(tmp_path / "ca.crt")} if changes.get("PGSSLROOTCERT") == "its own" else {}
            last = last_line(changes | own, port)
            assert mend in last, (name, last)
            assert "127.0.0.1" in last, "the server that answered"
    with postgresql(bin, "mlflow", "a password", "mlflow") as port:
        assert "postgresql.external.sslMode=disable" in last_line({"PGSSLMODE": "require"}, port)


def test_a_database_that_may_still_start_is_waited_for() -> None:
    nobody = f"postgresql+psycopg2://mlflow@127.0.0.1:{free_port()}/mlflow"
    done = run_script("migrate", os.environ | {"MLFLOW_BACKEND_STORE_URI": nobody, "MIGRATE_TIMEOUT": "1"})
    assert done.returncode == 1
    assert "refused" in done.stdout
    assert "trying again" in done.stdout
    assert "postgresql.external.host and .port" in done.stderr.splitlines()[-1]


@pytest.mark.long
def test_a_database_of_a_newer_mlflow_is_named() -> None:
    bin = programs()
    if bin is None:
        unavailable("PostgreSQL's server is not installed: apt-get install postgresql")
    with postgresql(bin, "mlflow", "a password", "mlflow") as port:
        address = f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/mlflow"
        environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": address, "PGPASSWORD": "a password"}
        assert run_script("migrate", environment).returncode == 0
        there = ["-h", "127.0.0.1", "-p", str(port), "-U", "mlflow", "mlflow"]
        newer = "update alembic_version set version_num = 'abc'"
        subprocess.run([bin / "psql", *there, "-c", newer], check=True, capture_output=True, env=environment)
        done = run_script("migrate", environment)
        assert done.returncode != 0
        assert "the database is of a newer MLflow than this image" in done.stdout.splitlines()[-1]


@pytest.mark.long
def test_mlflows_database_comes_back_from_its_dump(tmp_path: Path) -> None:
    """With the commands of docs/install.md, into the database of a new installation."""
    from mlflow import MlflowClient

    bin = programs()
    if bin is None:
        unavailable("PostgreSQL's server is not installed: apt-get install postgresql")
    text = (ROOT / "docs" / "install.md").read_text("utf-8").replace("\\\n", "")
    told = r"kubectl exec .*postgresql-0 -- +(sh -c 'PGPASSWORD=\S+ (pg_dump|pg_restore) .*)"
    commands = dict(re.findall(told, text))
    dump, restore = sorted(commands, key=commands.__getitem__)
    experiment = {}
    for command in (dump, restore):
        password = f"of the server for {commands[command]}"
        with postgresql(bin, "mlflow", password, "mlflow") as port:
            address = f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/mlflow"
            environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": address, "PGPASSWORD": password}
            assert run_script("migrate", environment).returncode == 0
            client = MlflowClient(address.replace("mlflow@", f"mlflow:{password.replace(' ', '%20')}@"))
            if command == dump:
                client.create_experiment("lmmpress")
            there = {"POSTGRES_PASSWORD": password, "PGHOST": "127.0.0.1", "PGPORT": str(port)}
            path = os.environ | there | {"PATH": f"{bin}:{os.environ['PATH']}"}
            subprocess.run(["sh", "-c", command], cwd=tmp_path, env=path, check=True)
            found = client.get_experiment_by_name("lmmpress")
            assert found is not None
            experiment[command] = (found.experiment_id, found.creation_time)
    assert experiment[dump] == experiment[restore]


def test_the_hook_retries_and_then_reports_the_reason(s3: MiniStack) -> None:
    proxy = Proxy(s3.endpoint)
    busy, refuse = answer("503 Service Unavailable", "SlowDown"), answer("403 Forbidden", "AccessDenied")
    proxy.answers = [busy] * 2
    name = f"late-{int(time.time())}"
    environment = pod_environment("-prepare", proxy.endpoint, s3, BUCKETS=name, EXPERIMENT="", PREPARE_TIMEOUT="30")
    done = run_script("prepare", environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"bucket {name} made"
    assert "trying again" in done.stdout
    # temporary errors are retried until the timeout; others are reported at once
    for fault, seconds, told in ((busy, "0.2", "the server answers"), (refuse, "600", "access is denied")):
        proxy.answers = [fault] * 50
        done = run_script("prepare", environment | {"PREPARE_TIMEOUT": seconds, "BUCKETS": "other"})
        assert done.returncode == 1
        assert done.stderr.startswith(f"bucket other at {proxy.endpoint}: {told}"), done.stderr
        assert s3.secret_key not in done.stdout + done.stderr
    proxy.close()


@pytest.fixture
def minio() -> Iterator[MinioUsers]:
    server = MinioUsers()
    yield server
    server.close()


def users_environment(minio: MinioUsers, **more: str) -> dict[str, str]:
    """The environment of the hook's pod, for the part that makes users of MinIO."""
    (pod,) = (pod for key, pod in pods(render("minimal")).items() if key.endswith("-prepare"))
    (users,) = (one["value"] for one in containers(pod)[0]["env"] if one["name"] == "USERS")
    server = MiniStack(Path(), 0)
    server.access_key, server.secret_key = minio.access_key, minio.secret_key
    more = {"BUCKETS": "", "EXPERIMENT": "", "PREPARE_TIMEOUT": "5", "USERS": users} | more
    return pod_environment("-prepare", minio.endpoint, server, **more)


def test_the_hook_makes_users_with_rights_on_their_prefix(minio: MinioUsers) -> None:
    done = run_script("prepare", users_environment(minio))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == [
        "keys of mlflow: may write to mlflow/artifacts",
        "keys of pipeline: may write to lmmpress/store and read lmmpress/models, lmmpress/data, lmmpress/sample",
    ]
    assert minio.users == {
        "key-of-PIPELINE": ("secret-of-PIPELINE", "lmmpress-pipeline"),
        "key-of-MLFLOW": ("secret-of-MLFLOW", "lmmpress-mlflow"),
    }
    rights = policy([Place("lmmpress", "store")], [Place("lmmpress", name) for name in ("models", "data", "sample")])
    deny = {"Effect": "Deny", "Action": ["admin:*"]}
    assert minio.policies["lmmpress-pipeline"] == rights | {"Statement": [*rights["Statement"], deny]}
    was = copy.deepcopy((minio.users, minio.policies))
    again = run_script("prepare", users_environment(minio))
    assert (again.stdout, minio.users, minio.policies) == (done.stdout, *was), "run again, it changes nothing"


def test_changed_keys_replace_the_old_users_and_leave_others_alone(minio: MinioUsers) -> None:
    minio.users["somebody"] = ("else", "readonly")
    assert run_script("prepare", users_environment(minio)).returncode == 0
    changed = {"PIPELINE_ACCESS_KEY_ID": "new-key", "PIPELINE_SECRET_ACCESS_KEY": "new-secret"}
    assert run_script("prepare", users_environment(minio, **changed)).returncode == 0
    assert minio.users == {
        "somebody": ("else", "readonly"),
        "new-key": ("new-secret", "lmmpress-pipeline"),
        "key-of-MLFLOW": ("secret-of-MLFLOW", "lmmpress-mlflow"),
    }


def test_one_pair_of_keys_for_both_has_the_rights_of_both(minio: MinioUsers) -> None:
    one_for_both = {"PIPELINE_ACCESS_KEY_ID": "both", "MLFLOW_ACCESS_KEY_ID": "both"}
    for _ in range(2):
        assert run_script("prepare", users_environment(minio, **one_for_both)).returncode == 0
        assert {key: told[1] for key, told in minio.users.items()} == {"both": "lmmpress-mlflow,lmmpress-pipeline"}


def test_root_keys_for_pipelines_cause_a_warning(minio: MinioUsers) -> None:
    same = {"PIPELINE_ACCESS_KEY_ID": minio.access_key, "PIPELINE_SECRET_ACCESS_KEY": minio.secret_key}
    done = run_script("prepare", users_environment(minio, **same))
    assert done.returncode == 0
    assert "keys of pipeline: WARNING: they are MinIO's root keys" in done.stdout
    assert minio.users.keys() == {"key-of-MLFLOW"}


def test_a_server_without_users_is_reported_and_one_that_starts_is_waited_for(minio: MinioUsers) -> None:
    minio.answers = [503, 503]
    done = run_script("prepare", users_environment(minio))
    assert done.returncode == 0
    assert "the server answers 503; trying again" in done.stdout
    minio.answers = [403]
    done = run_script("prepare", users_environment(minio))
    assert (done.returncode, done.stderr) == (1, f"keys of mlflow at {minio.endpoint}: the server answers 403\n")


def test_a_store_that_cannot_be_used_is_reported(s3: MiniStack) -> None:
    for endpoint, told in (
        (s3.endpoint, "there is no such bucket"),
        ("http://127.0.0.1:9", "no answer from the server"),
    ):
        environment = pod_environment("check-store", endpoint, s3, STORE="s3://no-such-bucket/a")
        done = run_script("check_store", environment)
        assert done.returncode == 1
        assert done.stderr.startswith("store s3://no-such-bucket/a: "), done.stderr
        assert told in done.stderr


def test_a_server_that_ignores_conditions_is_reported(s3: MiniStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy removes the condition from every write, so that the server accepts it."""

    class Forgetful(Proxy):
        def _serve(self, client: Any) -> None:
            super()._serve(cast(socket.socket, _Without(client)))

    class _Without:
        def __init__(self, client: Any) -> None:
            self._client = client

        def __getattr__(self, name: str) -> Any:
            return getattr(self._client, name)

        def __enter__(self) -> Any:
            self._client.__enter__()
            return self

        def __exit__(self, *what: Any) -> None:
            self._client.__exit__(*what)

        def fileno(self) -> int:
            return int(self._client.fileno())

        def recv(self, size: int) -> bytes:
            # a header of the same length that says nothing
            return bytes(self._client.recv(size)).replace(b"If-None-Match:", b"X-None-Match:-")

    environment = pod_environment("-prepare", s3.endpoint, s3, EXPERIMENT="", BUCKETS="lmmpress")
    assert run_script("prepare", environment).returncode == 0
    proxy = Forgetful(s3.endpoint)
    done = run_script("check_store", pod_environment("check-store", proxy.endpoint, s3))
    proxy.close()
    assert done.returncode == 1
    assert "the server overwrites what If-None-Match forbids" in done.stderr


def test_a_pod_that_cannot_report_to_argo_is_told_why(tmp_path: Path) -> None:
    """The API's answers are given by a stub in the place of the client: the pod's own files lie in the image only."""
    answer = """
import io, socket, urllib.request
def no_name(*_):
    raise socket.gaierror(socket.EAI_NONAME, "no such name")
socket.getaddrinfo = no_name
def ask(request, **_):
    FAULT
    verb = json.loads(request.data)["spec"]["resourceAttributes"]["verb"]
    return io.BytesIO(json.dumps({"status": {"allowed": verb != "DENIED"}}).encode())
urllib.request.urlopen = ask
from pathlib import Path
Path.read_text = lambda *_: "a token"
import ssl
ssl.create_default_context = lambda **_: None
"""
    for fault, denied, said in (
        ("pass", "none", ""),
        ("pass", "patch", "may not patch workflowtaskresults.argoproj.io; pipeline.rbac.create=true"),
        ("raise TimeoutError('timed out')", "none", "timed out; networkPolicy.kubernetesApi"),
    ):
        stub = answer.replace("FAULT", fault).replace("DENIED", denied)
        text = one(render("minimal"), "ConfigMap", "press-lmmpress-scripts")["data"]["check_engine.py"]
        kubernetes = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443", "NAMESPACE": "team"}
        command = [sys.executable, "-c", f"import json\n{stub}\n{text}"]
        done = subprocess.run(command, env=os.environ | kubernetes, capture_output=True, encoding="utf-8", check=False)
        assert (done.returncode == 0) == (said == ""), done.stderr
        assert said in done.stderr
