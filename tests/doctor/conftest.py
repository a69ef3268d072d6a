"""A cluster that answers, a profile for it, and the command `doctor`."""

import copy
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.findings import Json
from support.kubeflow import Kubeflow
from support.kubernetes_api import Kubernetes
from support.mlflow_stub import Mlflow
from support.plans import PLAN, PROFILE
from typer.testing import CliRunner, Result

from lmmpress.cli.app import app


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubernetes]:
    server = Kubernetes()
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path)))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KFP_TOKEN", "KFP_TOKEN_FILE", "MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("lmmpress.doctor.in_cluster.PAUSE", 0.01)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def others() -> Iterator[tuple[Kubeflow, Mlflow]]:
    """Kubeflow and MLflow without faults."""
    found = Kubeflow(["SUCCEEDED"]), Mlflow()
    yield found
    for one in found:
        one.stop()


@pytest.fixture
def profile(others: tuple[Kubeflow, Mlflow]) -> Json:
    kubeflow, mlflow = others
    where = {"host": kubeflow.host, "namespace": "team-ads"}
    return copy.deepcopy(PROFILE) | {"kubeflow": where, "environment": {"MLFLOW_TRACKING_URI": mlflow.host}}


@pytest.fixture
def doctor(cluster: Kubernetes, profile: Json, tmp_path: Path) -> Callable[..., Result]:
    def run(*options: str, **plan: Any) -> Result:
        raw = PLAN | {"model": "/data/antgmm", "store": "/data/store"} | plan
        (tmp_path / "plan.yaml").write_text(yaml.safe_dump(raw), "utf-8")
        (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(profile), "utf-8")
        command = ["doctor", "--cluster", str(tmp_path / "cluster.yaml"), "--plan", str(tmp_path / "plan.yaml")]
        return CliRunner().invoke(app, [*command, *options])

    return run


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of S3 and MLflow in the environment, and short timeouts for both."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "MLFLOW_", "MINIO_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("lmmpress.doctor.external_services._PATIENCE", 0.2)


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mlflow]:
    stub = Mlflow()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stub.host)
    yield stub
    stub.stop()
