"""The doctor's checks of MLflow, from here and from a pod."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.findings import only
from support.mlflow_stub import REGISTRY, Mlflow
from support.s3 import free_port, wait_for

from lmmpress.doctor.external_services import check_mlflow

pytestmark = pytest.mark.usefixtures("bare_environment")


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
def test_a_fault_of_mlflow_is_reported_with_the_remedy(broken: str, mlflow: Mlflow) -> None:
    answers, said, mend = MLFLOW_FAULTS[broken]
    mlflow.answers |= answers
    one = only(check_mlflow(here=False))
    assert one.status == "failed"
    assert said in one.said
    assert mend in one.mend


def test_mlflow_is_called_as_its_client_does_and_no_password_is_repeated(
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
    nowhere = subprocess.DEVNULL
    server = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, stdout=nowhere, stderr=nowhere)
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
