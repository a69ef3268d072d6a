"""The cluster profile: what is refused in it, and that neither it nor a plan may hold a secret."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from support.paths import ROOT
from support.plans import PLAN, PROFILE
from support.tasks import asked_by
from typer.testing import CliRunner

from lmmpress.cli.app import app
from lmmpress.errors import UserError
from lmmpress.plan import parse_plan
from lmmpress.tasks.cluster_profile import Profile, read_profile
from lmmpress.tasks.parameters import plan_of


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"imagee": "x"}, "unknown key imagee; did you mean 'image'"),
        ({"components": {"distil": {}}}, "did you mean 'distill'"),
        ({"components": {"distill": {"gpu": 1}}}, "unknown key components.distill.gpu"),
        ({"environment": {"AWS_SECRET_ACCESS_KEY": "x"}}, "looks like a secret"),
        ({"environment": {"MLFLOW_TRACKING_TOKEN": "x"}}, "looks like a secret"),
        ({"defaults": {"requests": {"memory": "16 GB"}}}, "no quantity"),
        ({"defaults": {"gpus": -1}}, "greater than or equal to 0"),
        ({"volumes": [{"claim": "x", "path": "data"}]}, "no absolute path"),
        ({"secrets": {"store": {"name": "Not A Name"}}}, "no name in Kubernetes"),
        ({"security": {"user": 0}}, "greater than or equal to 1"),
    ],
)
def test_an_invalid_profile_is_refused_in_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(PROFILE | change), "utf-8")
    with pytest.raises(UserError, match=re.escape(message)) as found:
        read_profile(path)
    assert "\n" not in str(found.value)
    assert str(found.value).startswith(str(path))


def refused(tmp_path: Path, raw: dict[str, Any]) -> list[str]:
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False), "utf-8")
    with pytest.raises(UserError) as caught:
        read_profile(path)
    return [line.removeprefix(f"{path}, ") for line in caught.value.lines]


def test_all_faults_of_a_profile_are_reported_with_their_lines(tmp_path: Path) -> None:
    raw = {"imagee": "x", "ttl": -1, "environment": {"DB_PWD": "x"}, "components": {"distil": {}, "gate": {"gpu": 1}}}
    assert refused(tmp_path, raw) == [
        "line 1: unknown key imagee; did you mean 'image'?",
        "line 2: ttl: input should be greater than or equal to 0, got -1",
        "line 4: environment.DB_PWD looks like a secret: put it into a Secret and name that in secrets",
        "line 6: components.distil is no component; did you mean 'distill'?",
        "line 8: unknown key components.gate.gpu; did you mean 'gpus'?",
    ]


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        ({"image": "user:hush@registry.example.com/lmmpress@sha256:" + "1" * 64}, "image"),
        ({"environment": {"HTTPS_PROXY": "http://u:hush@proxy:3128"}}, "environment.HTTPS_PROXY"),
        ({"environment": {"MLFLOW_TRACKING_URI": "postgresql://u:hu/sh@host/db"}}, "environment.MLFLOW_TRACKING_URI"),
        ({"environment": {"WHERE": "https://host/m?X-Amz-Signature=hush"}}, "environment.WHERE"),
        ({"environment": {"JAVA_OPTS": "-Xmx1g -Dhttp.proxyPassword=hush"}}, "environment.JAVA_OPTS"),
        ({"environment": {"HUB": "hf_hush567890123456789012"}}, "environment.HUB"),
        ({"environment": {"PGPASSWORD": "hush"}}, "environment.PGPASSWORD"),
        ({"environment": {"DB_PASS": "hush"}}, "environment.DB_PASS"),
        ({"kubeflow": {"host": "https://u:hush@kubeflow"}}, "kubeflow.host"),
        ({"kubeflow": {"ui": "https://kubeflow/?access_token=hush"}}, "kubeflow.ui"),
        ({"queue": "u:hush@queue"}, "queue"),
        ({"defaults": {"node_selector": {"pool": "u:hush@x"}}}, "defaults.node_selector.pool"),
        ({"components": {"gate": {"tolerations": [{"key": "a", "value": "u:hush@x"}]}}},
         "components.gate.tolerations.0.value"),
        ({"defaults": {"affinity": [{"expressions": [{"key": "a", "operator": "In", "values": ["u:hush@x"]}]}]}},
         "defaults.affinity.0.expressions.0.values.0"),
    ],
)  # fmt: skip
def test_a_profile_holds_no_secret_wherever_it_is_written(tmp_path: Path, raw: dict[str, Any], place: str) -> None:
    (line,) = refused(tmp_path, raw)
    assert f": {place} " in line
    assert "put it into a Secret" in line or "put them into a Secret" in line
    assert "secrets" in line
    assert "hush" not in line
    with pytest.raises(ValidationError) as bare:
        Profile.model_validate(raw)
    assert "hush" not in str(bare.value)


def test_a_setting_that_only_sounds_like_a_secret_is_accepted() -> None:
    names = ("AWS_REGION", "MONKEY", "TOKENIZERS_PARALLELISM", "AWS_WEB_IDENTITY_TOKEN_FILE", "NO_PROXY", "KMS_KEY_ID")
    Profile.model_validate({"environment": dict.fromkeys(names, "x.example.org,10.0.0.0/8")})


@pytest.mark.parametrize("key", ["model", "data", "store"])
@pytest.mark.parametrize("command", ["compile", "submit", "run", "kfp-local", "plan"])
def test_no_command_takes_a_plan_with_a_secret_or_repeats_it(tmp_path: Path, key: str, command: str) -> None:
    """And no command has written a file before it refuses."""
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(PROFILE), "utf-8")
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN | {key: "s3://KEY:hush@bucket/p"}), "utf-8")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*")}
    options = {
        "compile": ["compile", "-o", str(tmp_path / "pipeline.yaml"), "--cluster", str(tmp_path / "cluster.yaml")],
        "submit": ["submit", "--cluster", str(tmp_path / "cluster.yaml")],
        "run": ["run", "--out", str(tmp_path / "out")],
        "kfp-local": ["run", "--out", str(tmp_path / "out"), "--engine", "kfp-local"],
        "plan": ["plan"],
    }[command]
    found = CliRunner().invoke(app, [*options, str(tmp_path / "plan.yaml")])
    assert isinstance(found.exception, UserError)
    assert f"{key} holds credentials, and a plan is kept and shown: write s3://bucket/p" in str(found.exception)
    assert "hush" not in f"{found.exception}{found.output}"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_the_parameters_of_a_pipeline_hold_no_secret_either() -> None:
    arguments = asked_by(parse_plan(PLAN), "antgmm")
    arguments.pop("name")
    with pytest.raises(UserError, match="the pipeline's parameters: store holds credentials") as caught:
        plan_of(**arguments | {"store": "s3://KEY:hush@bucket/p"})
    assert "hush" not in str(caught.value)
    with pytest.raises(UserError, match="no section of a plan"):
        plan_of(**arguments | {"settings": {"tolerance": 3}})


def test_the_documented_profile_is_valid_and_has_every_key() -> None:
    (told,) = re.findall(r"```yaml\n(image: .*?)```", (ROOT / "docs" / "kubeflow.md").read_text("utf-8"), re.DOTALL)
    raw = yaml.safe_load(told)
    profile = Profile.model_validate(raw)
    assert raw.keys() == Profile.model_fields.keys()
    assert raw["kubeflow"].keys() == type(profile.kubeflow).model_fields.keys()
    pod = {key for one in (raw["defaults"], *raw["components"].values()) for key in one}
    assert pod == type(profile.defaults).model_fields.keys()


def test_unusual_settings_cause_a_warning_and_with_strict_an_error(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN), "utf-8")
    odd = PROFILE | {"image": "lmmpress:latest", "components": {"ffn_prune": {"gpus": 2}}}
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(odd), "utf-8")
    target = tmp_path / "pipeline.yaml"
    command = ["compile", str(tmp_path / "plan.yaml"), "--cluster", str(tmp_path / "cluster.yaml"), "-o", str(target)]
    told = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert told["bytes"] == target.stat().st_size
    assert "no digest" in told["warnings"][0]
    assert "components.ffn_prune asks for 2 GPUs, which would lie idle there" in told["warnings"][1]
    target.unlink()
    refused = CliRunner().invoke(app, [*command, "--strict"])
    assert isinstance(refused.exception, UserError)
    assert not target.exists()
