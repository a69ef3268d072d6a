"""The trigger's settings: one file, the environment before it, and every fault with its place."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.plans import PLAN

from lmmpress.errors import UserError
from lmmpress.trigger.settings import EngineName, Start, TriggerSettings, read_settings
from lmmpress.trigger.trigger import plan_in

GOOD: dict[str, Any] = {
    "store": "s3://models/trigger",
    "tracking": "http://mlflow:5000",
    "models": {"AntGMM": {"plans": {"usual": {"plan": "plan.yaml", "cluster": "cluster.yaml"}}}},
}


def written(folder: Path, raw: Any) -> Path:
    (folder / "plan.yaml").write_text(yaml.safe_dump(PLAN), "utf-8")
    path = folder / "trigger.yaml"
    path.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw, sort_keys=False), "utf-8")
    return path


def changed(**model: Any) -> dict[str, Any]:
    return GOOD | {"models": {"AntGMM": GOOD["models"]["AntGMM"] | model}}


def fault(folder: Path, raw: Any) -> str:
    with pytest.raises(UserError) as caught:
        read_settings(written(folder, raw))
    return str(caught.value).replace(f"{folder}/", "")


def test_a_short_file_is_enough(tmp_path: Path) -> None:
    settings = read_settings(written(tmp_path, GOOD))
    model = settings.models["AntGMM"]
    assert (model.alias, model.newest, model.policy.start) == ("release", False, Start.every_release)
    assert model.plans["usual"].engine is EngineName.kubeflow
    assert settings.allowed("AntGMM") == ("usual", model.plans["usual"])


def test_paths_are_taken_from_the_files_own_folder(tmp_path: Path) -> None:
    server = {
        "webhook_secrets": [{"file": "secrets/webhook"}],
        "tokens": [{"name": "ci", "role": "viewer", "file": "t"}],
        "page": {"session_secret": {"file": "session"}},
    }
    notices = {"addresses": [{"name": "team", "file": "mail"}]}
    settings = read_settings(written(tmp_path, GOOD | {"store": "store", "server": server, "notices": notices}))
    plan = settings.models["AntGMM"].plans["usual"]
    assert (plan.plan, plan.cluster) == (str(tmp_path / "plan.yaml"), str(tmp_path / "cluster.yaml"))
    assert (settings.store, settings.runs) == (str(tmp_path / "store"), str(tmp_path / "runs"))
    assert settings.server.webhook_secrets[0].file == tmp_path / "secrets" / "webhook"
    assert settings.server.tokens[0].file == tmp_path / "t"
    assert settings.server.page.session_secret is not None
    assert settings.server.page.session_secret.file == tmp_path / "session"
    assert settings.notices.addresses[0].file == tmp_path / "mail"


def test_files_that_kubernetes_mounts_are_found_after_it_has_written_them_anew(tmp_path: Path) -> None:
    """It writes a new folder, moves the link `..data` there, and removes the folder before."""

    def written_anew(name: str) -> None:
        (tmp_path / name / "plans").mkdir(parents=True)
        raw = GOOD | {"models": {"AntGMM": {"plans": {"a": {"plan": "plans/a.yaml", "engine": "local"}}}}}
        written(tmp_path / name, raw)
        (tmp_path / name / "plans" / "a.yaml").write_text(yaml.safe_dump(PLAN), "utf-8")
        (tmp_path / "next").symlink_to(name)
        (tmp_path / "next").replace(tmp_path / "..data")

    written_anew("..1")
    for name in ("trigger.yaml", "plans"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    settings = read_settings(tmp_path / "trigger.yaml")
    written_anew("..2")
    shutil.rmtree(tmp_path / "..1")
    plan = settings.models["AntGMM"].plans["a"].plan
    assert plan == str(tmp_path / "plans" / "a.yaml")
    assert plan_in(plan).model == PLAN["model"]


def test_the_environment_names_the_file_and_replaces_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMMPRESS_TRIGGER_SETTINGS", str(written(tmp_path, GOOD)))
    monkeypatch.setenv("LMMPRESS_TRIGGER__TRACKING", "http://elsewhere:5000")
    monkeypatch.setenv("LMMPRESS_TRIGGER__SERVER__PORT", "9090")
    settings = read_settings()
    assert (settings.tracking, settings.server.port) == ("http://elsewhere:5000", 9090)
    assert settings.store == "s3://models/trigger", "what the environment does not name comes from the file"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("LMMPRESS_TRIGGER__STOER", "x", "LMMPRESS_TRIGGER__STOER: unknown key stoer; did you mean 'store'?"),
        ("LMMPRESS_TRIGGER__SERVER__PRT", "1", "LMMPRESS_TRIGGER__SERVER__PRT: unknown key; did you mean 'port'?"),
        ("LMMPRESS_TRIGGER__SERVER__PORT", "x", "LMMPRESS_TRIGGER__SERVER__PORT: input should be a valid integer"),
        ("LMMPRESS_TRIGGER__MODELS", "{", "LMMPRESS_TRIGGER__...: error parsing value for field"),
    ],
)
def test_a_fault_of_the_environment_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    assert fault(tmp_path, GOOD).startswith(said)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (GOOD | {"trackng": "x"}, "trigger.yaml, line 9: unknown key trackng; did you mean 'tracking'?"),
        ({key: GOOD[key] for key in ("store", "models")}, "trigger.yaml: tracking is missing"),
        (GOOD | {"models": {}}, "trigger.yaml, line 3: models: dictionary should have at least 1 item"),
        (changed(plans={}), "models.AntGMM.plans: dictionary should have at least 1 item"),
        (changed(alais="x"), "unknown key models.AntGMM.alais; did you mean 'alias'?"),
        (changed(plans={"usual": {"plan": "p.yaml"}}), "engine kubeflow needs cluster"),
        (changed(plans={"usual": {"plan": "p.yaml", "engine": "slurm"}}), "should be 'kubeflow', 'argo' or 'local'"),
        (changed(default="big"), "default: there is no plan 'big'; known are usual"),
        (changed(newest=True, alias="release"), "alias and newest exclude each other"),
        (changed(policy={"start": "window"}), "start: window and the section window belong together"),
        (changed(policy={"window": {"opens": "0 22 * * *", "hours": 8}}), "belong together"),
        (
            changed(policy={"start": "window", "window": {"opens": "22:00", "hours": 8}}),
            "models.AntGMM.policy.window.opens is no time of cron's: '22:00'",
        ),
        (
            changed(policy={"start": "window", "window": {"opens": "0 22 * * *", "hours": 8, "zone": "Asia/Hangzhou"}}),
            "there is no time zone 'Asia/Hangzhou'",
        ),
        (changed(policy={"most_a_day": 0}), "models.AntGMM.policy.most_a_day: input should be greater than or equal"),
        (GOOD | {"store": "s3://KEY:hunter2@models/x"}, "store holds credentials"),
        (GOOD | {"tracking": "http://ann:hunter2@mlflow"}, "tracking holds credentials"),
        ("- a", "a trigger settings is a mapping of settings, this holds a list"),
    ],
)
def test_a_fault_of_the_file_is_told_with_its_place(tmp_path: Path, raw: Any, said: str) -> None:
    found = fault(tmp_path, raw)
    assert said in found
    assert "hunter2" not in found


def test_no_file_is_looked_for_in_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, GOOD)
    (tmp_path / ".env").write_text("LMMPRESS_TRIGGER__TRACKING=http://evil\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"give --settings TRIGGER\.yaml, or set LMMPRESS_TRIGGER_SETTINGS"):
        read_settings()
    assert read_settings(tmp_path / "trigger.yaml").tracking == "http://mlflow:5000"


def test_what_is_not_watched_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    settings: TriggerSettings = read_settings(written(tmp_path, GOOD))
    with pytest.raises(UserError, match=r"model 'AntGMN' is not watched; did you mean 'AntGMM'\?"):
        settings.allowed("AntGMN")
    with pytest.raises(UserError, match=r"has no plan 'usul'; did you mean 'usual'\?"):
        settings.allowed("AntGMM", "usul")


@pytest.mark.parametrize(
    ("section", "content"),
    [
        ("server", {"tokens": "open-sesame"}),
        ("server", {"tokens": [{"name": "mei", "role": "operator", "env": "open-sesame"}]}),
        ("server", {"tokens": [{"name": "open-sesame open-sesame", "role": "operator", "env": "A"}]}),
        ("server", {"webhook_secrets": ["open-sesame"]}),
        ("server", {"page": {"session_secret": "open-sesame"}}),
        ("server", {"page": {"session_secret": {"env": "open-sesame"}}}),
        ("server", {"page": {"oidc": {"client_secret": "open-sesame"}}}),
        ("server", {"page": {"oidc": {"client_secret": {"env": "open-sesame"}}}}),
        ("notices", {"addresses": ["dingtalk://open-sesame"]}),
        ("notices", {"addresses": [{"name": "team", "env": "dingtalk://open-sesame"}]}),
    ],
)
def test_a_secret_in_the_wrong_place_is_not_repeated(tmp_path: Path, section: str, content: dict[str, Any]) -> None:
    said = fault(tmp_path, changed() | {section: content})
    assert f"{section}." in said
    assert "sesame" not in said


OIDC = {"issuer": "https://login.example.com/realms/ads", "client_id": "lmmpress", "client_secret": {"file": "client"}}


def page_of(tmp_path: Path, oidc: dict[str, Any], address: str | None = "https://press.example.com") -> dict[str, Any]:
    page = {"oidc": OIDC | oidc} | ({"address": address} if address else {})
    return changed() | {"server": {"page": page}}


def test_an_issuer_is_named_as_it_names_itself(tmp_path: Path) -> None:
    for address in (OIDC["issuer"], "https://tenant.example.com/", "http://127.0.0.1:9400", "http://[::1]:80"):
        page = read_settings(written(tmp_path, page_of(tmp_path, {"issuer": address}))).server.page
        assert page.oidc is not None
        assert page.oidc.issuer == address
        assert page.oidc.client_secret.file == tmp_path / "client"


@pytest.mark.parametrize(
    "issuer",
    [
        "http://login.example.com",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "https://mei:hunter2@login.example.com",
        "https://login.example.com/?x=1",
        "https://login.example.com/#x",
        "https://login example.com",
        "https://",
        "https://[x",
        "https://login.example.com:x",
        "https://登录.example.com",
        "ftp://login.example.com",
        "login.example.com",
    ],
)
def test_an_issuer_that_others_can_listen_to_is_refused(tmp_path: Path, issuer: str) -> None:
    found = fault(tmp_path, page_of(tmp_path, {"issuer": issuer}))
    assert "server.page.oidc.issuer is no issuer; write it as https://login.example.com" in found


@pytest.mark.parametrize("address", [None, "http://press.example.com"])
def test_an_issuer_sends_people_back_to_an_address_with_tls(tmp_path: Path, address: str | None) -> None:
    assert "server.page: oidc needs `address`, with https" in fault(tmp_path, page_of(tmp_path, {}, address))


def test_an_issuer_is_asked_who_it_is(tmp_path: Path) -> None:
    assert "server.page.oidc.scopes: lacks openid" in fault(tmp_path, page_of(tmp_path, {"scopes": ["email"]}))


def test_the_secret_of_an_issuers_client_is_kept_from_runs(tmp_path: Path) -> None:
    found = read_settings(written(tmp_path, page_of(tmp_path, {"client_secret": {"env": "LOGIN_SECRET"}})))
    assert found.secret_variables == {"LOGIN_SECRET"}
