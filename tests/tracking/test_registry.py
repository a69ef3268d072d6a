"""From a registered model to its checkpoint, through a real registry and a real server."""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType
from support.mlflow_server import new_database, serving

from lmmpress.errors import UserError
from lmmpress.tracking.client import open_client, resolving_models_in
from lmmpress.tracking.database import uri_of
from lmmpress.tracking.registry import address_of, forget


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def database(folder: Path) -> str:
    return uri_of(new_database(folder / "mlflow.db"))


@pytest.fixture(scope="module")
def client(database: str) -> MlflowClient:
    return open_client(database)


@pytest.fixture(scope="module")
def server(folder: Path, database: str) -> Iterator[str]:
    with serving(folder / "mlflow.db", folder) as address:
        yield address


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMMPRESS_CACHE", str(tmp_path / "cache"))


def checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", "utf-8")
    return folder


def register(client: MlflowClient, name: str, source: str, run: str | None = None, **tags: str) -> str:
    client.create_registered_model(name)
    told = {f"lmmpress.{key}": value for key, value in tags.items()}
    with resolving_models_in(client):
        logged = source.removeprefix("models:/") if source.startswith("models:/m-") else None
        version = client.create_model_version(name, source, run, told, model_id=logged)
    return f"models:/{name}/{version.version}"


def experiment(client: MlflowClient, name: str, place: str) -> str:
    return client.create_experiment(name, artifact_location=place)


def path_at(uri: str) -> Path:
    """The folder that a file URI names."""
    return Path(unquote(urlsplit(uri).path))


def test_the_tag_of_a_version_holds_the_address(client: MlflowClient, database: str) -> None:
    assert address_of(register(client, "tagged", "/nowhere", address="s3://b/p"), database) == "s3://b/p"


def test_the_address_of_a_directory_is_its_path(client: MlflowClient, database: str, tmp_path: Path) -> None:
    place = checkpoint(tmp_path / "a b%20c")
    assert address_of(register(client, "plain", str(place)), database) == str(place)
    assert address_of(register(client, "as a URI", place.as_uri()), database) == str(place)
    assert address_of(register(client, "bucket", "s3://b/p"), database) == "s3://b/p"


def test_a_logged_model_of_ours_says_where_its_checkpoint_lies(client: MlflowClient, database: str) -> None:
    """As a version that was registered in MLflow's pages: it has none of our tags, but its model has."""
    model = client.create_logged_model("0", "ours", tags={"lmmpress.address": "s3://b/checkpoints/1"})
    assert address_of(register(client, "logged", f"models:/{model.model_id}"), database) == "s3://b/checkpoints/1"


def test_a_logged_model_of_others_is_followed_to_its_artifacts(
    client: MlflowClient, database: str, tmp_path: Path
) -> None:
    model = client.create_logged_model(experiment(client, "logged", tmp_path.as_uri()), "theirs")
    name = register(client, "theirs", f"models:/{model.model_id}")
    place = path_at(model.artifact_location)
    checkpoint(place)
    assert address_of(name, database) == str(place)


def test_a_runs_artifacts_are_followed(client: MlflowClient, database: str, tmp_path: Path) -> None:
    run = client.create_run(experiment(client, "runs", tmp_path.as_uri()))
    place = checkpoint(path_at(run.info.artifact_uri) / "deep" / "model")
    assert address_of(register(client, "of a run", f"runs:/{run.info.run_id}/deep/model"), database) == str(place)
    assert address_of(register(client, "its parent", f"runs:/{run.info.run_id}/deep"), database) == str(place)


def test_another_registered_model_is_followed(client: MlflowClient, database: str) -> None:
    first = register(client, "first", "/nowhere", address="s3://b/first")
    client.set_registered_model_alias("first", "best", "1")
    assert address_of(register(client, "copy", first), database) == "s3://b/first"
    assert address_of("models:/first@best", database) == "s3://b/first"


def test_artifacts_that_only_the_server_has_are_fetched(server: str, folder: Path, tmp_path: Path) -> None:
    client = open_client(server)
    made = checkpoint(tmp_path / "made")
    (made / "model.safetensors").write_bytes(b"weights")
    run = client.create_run(client.create_experiment("served"))
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    client.log_artifacts(run.info.run_id, str(made), "model")
    logged = client.create_logged_model(run.info.experiment_id, "served")
    client.log_model_artifacts(logged.model_id, str(made))
    sources = (
        f"runs:/{run.info.run_id}/model",
        f"{run.info.artifact_uri}/model",
        f"models:/{logged.model_id}",
    )
    for number, source in enumerate(sources):
        found = Path(address_of(register(client, f"served-{number}", source, run.info.run_id), server))
        assert {path.name for path in found.iterdir()} >= {"config.json", "model.safetensors"}
        assert (found / "model.safetensors").read_bytes() == b"weights"
        assert found.is_relative_to(tmp_path / "cache")


def test_a_version_that_leads_to_no_checkpoint_is_a_one_line_error(
    client: MlflowClient, database: str, tmp_path: Path
) -> None:
    parts = tmp_path / "parts"
    checkpoint(parts / "model")
    (parts / "components").mkdir()
    (parts / "MLmodel").write_text("flavors: {}", "utf-8")
    other = tmp_path / "other"
    other.mkdir()
    client.create_registered_model("circle")
    client.create_model_version("circle", "/nowhere")
    for name, source, said in (
        ("parts", str(parts), "stored in MLflow's own form, its parts in folders of their own"),
        ("other", str(other), "which is no checkpoint: it has no config.json"),
        ("gone", "/no/such/directory", "is no directory here; set its tag lmmpress.address"),
        ("of a lost run", f"runs:/{'0' * 32}/model", "not found"),
        ("of a lost scheme", "gopher://x/y", "set the tag lmmpress.address of models:/of a lost scheme/1"),
    ):
        with pytest.raises(UserError) as caught:
            address_of(register(client, name, source), database)
        (line,) = caught.value.lines
        assert said in line, line
    for name, said in (
        ("models:/nobody/1", "not found"),
        ("models:/nobody@best", "nobody"),
        ("models:/parts", "write a registered model as models:/Name/3"),
    ):
        with pytest.raises(UserError, match=said):
            address_of(name, database)


@pytest.mark.parametrize("scheme", ["mlflow-artifacts", "http", "https"])
def test_the_login_of_mlflow_is_sent_to_no_other_server(
    client: MlflowClient, database: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr("mlflow.artifacts.download_artifacts", lambda **more: asked.append(more))
    name = register(client, f"{scheme} elsewhere", f"{scheme}://evil.example:80/api/2.0/mlflow-artifacts/artifacts/x")
    with pytest.raises(UserError, match="not the registry's own server"):
        address_of(name, database)
    assert not asked


def test_mlflow_follows_no_name_to_another_server(
    client: MlflowClient, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr("mlflow.artifacts.download_artifacts", lambda **more: asked.append(more))
    run = client.create_run(experiment(client, "sly", "models:/evil/1"))
    with pytest.raises(UserError, match="to elsewhere"):
        address_of(register(client, "sly", f"runs:/{run.info.run_id}/model"), database)
    assert not asked


def test_what_was_fetched_and_is_no_checkpoint_does_not_stay(
    client: MlflowClient, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(artifact_uri: str, dst_path: str, tracking_uri: str) -> str:
        Path(dst_path, "weights").write_bytes(b"many")
        if artifact_uri.endswith("good"):
            Path(dst_path, "config.json").write_text("{}", "utf-8")
        return dst_path

    def kept() -> list[Path]:
        return list((tmp_path / "cache").rglob("weights"))

    monkeypatch.setattr("mlflow.artifacts.download_artifacts", fetch)
    bad = register(client, "no checkpoint", "ftp://x/bad")
    for _ in range(3):
        with pytest.raises(UserError, match=r"no config\.json"):
            address_of(bad, database)
    assert kept() == []
    found = address_of(register(client, "a checkpoint", "ftp://x/good"), database)
    assert len(kept()) == 1
    forget(found)
    assert kept() == []
    forget(str(tmp_path))
    assert tmp_path.is_dir(), "only what was fetched"


def test_nothing_is_written_where_a_name_is_looked_up(client: MlflowClient, database: str, folder: Path) -> None:
    before = (folder / "mlflow.db").stat().st_mtime_ns, sorted(os.listdir(folder))
    with pytest.raises(UserError):
        address_of("models:/nobody/1", database)
    assert ((folder / "mlflow.db").stat().st_mtime_ns, sorted(os.listdir(folder))) == before
    assert client.search_experiments(ViewType.ALL)
