"""Credentials are found in any place, and nothing else is taken for a credential."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from lmmpress.cli.app import app
from lmmpress.errors import UserError
from lmmpress.printing.credentials import (
    address_holds_credentials,
    address_without_credentials,
    holds_credentials,
    names_a_secret,
    without_credentials,
)

ADDRESSES = {
    "s3://KEY:hush@bucket/p": "s3://bucket/p",
    "s3://KEY:hu/sh@bucket/p": "s3://bucket/p",
    "s3://KEY:hu@sh@bucket/p": "s3://bucket/p",
    "s3://KEY:hu sh@bucket/p": "s3://bucket/p",
    "s3://KEY:hu?sh#@bucket/p": "s3://bucket/p",
    "S3://KEY:hush@bucket": "S3://bucket",
    "s3:/KEY:hush@bucket": "s3:/bucket",
    "s3//KEY:hush@bucket": "bucket",
    "s3:KEY:hush@bucket": "bucket",
    "KEY:hush@bucket/p": "bucket/p",
    "KEY:hu/sh@bucket/p": "bucket/p",
    "https://user:hush@host/m": "https://host/m",
    "https://hush@host/m": "https://host/m",
    "https://user:hush@[::1]:8080/m": "https://[::1]:8080/m",
    "postgresql+psycopg2://u:hu/sh@host:5432/db?sslmode=require": "postgresql+psycopg2://host:5432/db?sslmode=require",
    "postgresql://host/db?user=u&password=hush": "postgresql://host/db?user=u&password=***",
    "https://host/m?X-Amz-Signature=hush&X-Amz-Date=today": "https://host/m?X-Amz-Signature=***&X-Amz-Date=today",
    "https://host/m?X-Amz-Credential=hush&X-Amz-Security-Token=hush": (
        "https://host/m?X-Amz-Credential=***&X-Amz-Security-Token=***"
    ),
    "https://host/m?X%2DAmz%2DSignature=hush": "https://host/m?X%2DAmz%2DSignature=***",
    "https://acct.blob.core.windows.net/c?sv=2024&sig=hush": "https://acct.blob.core.windows.net/c?sv=2024&sig=***",
    "s3://bucket/p?token=hush": "s3://bucket/p?token=***",
    "s3://bucket/p?AWSAccessKeyId=hush&Signature=hush": "s3://bucket/p?AWSAccessKeyId=***&Signature=***",
    "https://host/m#access_token=hush": "https://host/m#access_token=***",
    "https://host/m?key=hush": "https://host/m?key=***",
}
HARMLESS = [
    "s3://bucket/prefix",
    "s3://bucket/run@5/model",
    "s3://bucket/p?versionId=3",
    "models:/AntGMM/3",
    "models:/AntGMM@compressed",
    "./ant:gmm@5",
    "/data/ads:v2@monday/p?token=1",
    "data@monday",
    "run?token=1",
    "http://127.0.0.1:5000",
    "http://[::1]:5000/a@b",
    "sqlite:////home/user@corp/mlflow.db",
]


@pytest.mark.parametrize(("address", "shown"), ADDRESSES.items())
def test_credentials_of_an_address_are_found_and_left_out(address: str, shown: str) -> None:
    assert address_holds_credentials(address)
    assert address_without_credentials(address) == shown


@pytest.mark.parametrize("address", HARMLESS)
def test_an_address_without_credentials_is_unchanged(address: str) -> None:
    assert not address_holds_credentials(address)


@pytest.mark.parametrize("address", [address for address in ADDRESSES if " " not in address])
@pytest.mark.parametrize("around", ["{}", "cannot reach {}: no route", "('{}',)", "url={}", "http://host/x,{}"])
def test_credentials_are_left_out_of_any_text(address: str, around: str) -> None:
    assert "hush" not in without_credentials(around.format(address))


@pytest.mark.parametrize(
    "text",
    [
        "Max retries exceeded with url: /bucket/x?X-Amz-Signature=hush&a=b (Caused by ReadTimeoutError())",
        "could not connect: host=db user=u password=hush dbname=x",
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=hush;",
        "Authorization: Bearer hush",
        "java -Dhttp.proxyPassword=hush -jar x",
        "the token ghp_hush5678901234567890hush is not accepted",
        "-----BEGIN RSA PRIVATE KEY-----\nhush\n-----END RSA PRIVATE KEY-----",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJodXNoIn0.hush",
        "pull user:hush@registry.example.com/lmmpress:1 failed",
    ],
)
def test_secrets_of_many_forms_are_left_out_of_texts(text: str) -> None:
    assert holds_credentials(text)
    assert "hush" not in without_credentials(text)


@pytest.mark.parametrize(
    "text",
    [
        "registry.example.com:5000/lmmpress@sha256:" + "1" * 64,
        "write it as key.key=value",
        "eos_token=2 and pad_token_id=0 of tokenizer_config.json",
        "file :name: of /data/a:b@c/x is missing",
        "a row asking 'who@where?' has no answer",
        "step 1/3 block -1: accuracy 0.5 (drop 0.1 < alpha)",
    ],
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert without_credentials(text) == text


@pytest.mark.parametrize(
    "name",
    [
        "DB_PWD",
        "PGPASSWORD",
        "DB_PASS",
        "API_KEY",
        "HF_TOKEN",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "MY_CREDENTIALS",
        "JWT",
        "encryptionKey",
        "X-Amz-Signature",
        "dbPassword",
        "SSH_PRIVATE_KEY",
        "KEY",
        "WANDB_API_KEY",
    ],
)
def test_a_name_says_that_its_value_is_secret(name: str) -> None:
    assert names_a_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "AWS_REGION",
        "MONKEY",
        "KEYBOARD",
        "COMPASS",
        "BYPASS",
        "TOKENIZERS_PARALLELISM",
        "PWD",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "SECRET_NAME",
        "KMS_KEY_ID",
        "OAUTH_TOKEN_URL",
        "MAX_TOKENS",
        "MLFLOW_TRACKING_URI",
    ],
)
def test_a_name_that_only_resembles_a_secrets_name_is_not_one(name: str) -> None:
    assert not names_a_secret(name)


def test_what_the_environment_keeps_secret_is_left_out_however_it_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "open sesame")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://u:p%40ss/w0rd!@host/db")
    text = "open sesame is refused, and so is p@ss/w0rd! or p%40ss/w0rd!"
    assert without_credentials(text) == "*** is refused, and so is *** or ***"
    assert str(UserError(text)) == without_credentials(text)


@pytest.mark.parametrize(
    "command",
    [
        ["inspect", "{}"],
        ["evaluate", "{}", "--data", "data"],
        ["evaluate", ".", "--data", "{}"],
        ["prune", "{}", "--axis", "ffn", "--remove", "1", "-o", "out"],
        ["prune", ".", "--axis", "ffn", "--remove", "1", "-o", "out", "--data", "{}"],
        ["store", "ls", "{}"],
        ["store", "verify", "{}"],
        ["store", "gc", "{}"],
        ["store", "cp", "store", "{}"],
        ["plan", "--preset", "paper", "--set", "model={}"],
    ],
)
def test_no_command_takes_an_address_with_credentials(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(app, [word.format("s3://KEY:hush@bucket/p") for word in command])
    assert isinstance(found.exception, UserError)
    assert "credentials" in str(found.exception)
    assert "environment" in str(found.exception)
    assert "hush" not in f"{found.exception}{found.output}"
    assert not list(tmp_path.iterdir()), "nothing was made"


passwords = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1)


@given(passwords, st.sampled_from(["s3", "https", "postgresql", "mysql+pymysql"]))
def test_any_password_is_left_out(password: str, scheme: str) -> None:
    address = f"{scheme}://user:{password}@host/p"
    assert address_holds_credentials(address)
    assert address_without_credentials(address) == f"{scheme}://host/p"
    assert without_credentials(f"at {address} now") == f"at {scheme}://host/p now"


@given(st.text(st.characters(codec=None)))
def test_any_text_can_be_searched_for_credentials(text: str) -> None:
    address_holds_credentials(text)
    assert without_credentials(without_credentials(text)) == without_credentials(text)


@pytest.mark.parametrize(
    "part", ["a", "a.", "?", "-eyJ", "a:", "a/", "='a", "&a", "-----BEGIN ", "password", "@", "%2"]
)
@pytest.mark.parametrize("mark", ["=", "@"])
def test_the_search_for_credentials_takes_linear_time(part: str, mark: str) -> None:
    """With a pattern that starts again at every character, each of these would take minutes."""
    assert without_credentials(f"{mark} {part * 100_000}{mark}x").startswith(mark)


def test_a_parameter_after_several_question_marks_is_one() -> None:
    assert without_credentials("https://host/a?b?token=hush") == "https://host/a?b?token=***"
