"""Tokens and signing secrets: read from files or the environment, compared as hashes, replaced without a restart."""

import hashlib
import os
from pathlib import Path

import pytest
from pydantic import ValidationError
from support.trigger_server import settings_of

from lmmpress.errors import UserError
from lmmpress.trigger.check import check_server
from lmmpress.trigger.server.secrets import Person, SigningSecrets, Tokens
from lmmpress.trigger.server_settings import Role, Secret, ServerSettings, Token

MEI, LI = "mei-" + "m" * 32, "li-" + "l" * 32


def token(path: Path, text: str, name: str = "mei", role: Role = "operator") -> Token:
    path.write_text(text, "utf-8")
    return Token(name=name, role=role, file=path)


def test_a_token_stands_for_a_name_and_a_role(tmp_path: Path) -> None:
    tokens = Tokens([token(tmp_path / "mei", f"{MEI}\n"), token(tmp_path / "li", LI, "li", "viewer")])
    assert tokens.person(MEI) == Person("mei", "operator")
    assert tokens.person(LI) == Person("li", "viewer")
    assert tokens.person(MEI + "x") is None
    assert tokens.person("") is None


def test_a_file_may_hold_the_hash_of_a_token(tmp_path: Path) -> None:
    hashed = f"sha256:{hashlib.sha256(MEI.encode()).hexdigest()}"
    tokens = Tokens([token(tmp_path / "mei", hashed)])
    assert tokens.person(MEI) == Person("mei", "operator")
    assert tokens.person(hashed) is None


def test_a_token_may_be_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEI_TOKEN", MEI)
    assert Tokens([Token(name="mei", role="viewer", env="MEI_TOKEN")]).person(MEI) == Person("mei", "viewer")


@pytest.mark.parametrize(("role", "may"), [("viewer", 1), ("operator", 2), ("administrator", 3)])
def test_a_role_includes_those_before_it(role: Role, may: int) -> None:
    roles: tuple[Role, ...] = ("viewer", "operator", "administrator")
    assert [Person("mei", role).may(one) for one in roles] == [number < may for number in range(3)]


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    tokens = Tokens([token(tmp_path / "mei", MEI)])
    new = tmp_path / "new"
    new.write_text(LI, "utf-8")
    new.replace(tmp_path / "mei")
    assert tokens.person(MEI) is None
    assert tokens.person(LI) == Person("mei", "operator")


def test_of_a_file_that_became_unreadable_the_last_value_stays(tmp_path: Path) -> None:
    complaints: list[str] = []
    tokens = Tokens([token(tmp_path / "mei", MEI)], complaints.append)
    (tmp_path / "mei").write_text("short", "utf-8")
    os.utime(tmp_path / "mei", (1, 1))
    assert tokens.person(MEI) == Person("mei", "operator")
    assert tokens.person("short") is None
    assert len(complaints) == 1
    assert "at least 32 characters" in complaints[0]


@pytest.mark.parametrize("text", ["", "\n"])
def test_a_token_is_revoked_at_once_by_emptying_its_file(tmp_path: Path, text: str) -> None:
    complaints: list[str] = []
    settings = [token(tmp_path / "mei", MEI), token(tmp_path / "li", LI, "li", "viewer")]
    tokens = Tokens(settings, complaints.append)
    (tmp_path / "mei").write_text(text, "utf-8")
    assert tokens.person(MEI) is None
    assert tokens.person("") is None, "nothing is no token"
    assert tokens.person(LI) == Person("li", "viewer"), "nobody else is locked out"
    assert tokens.values() == [LI]
    assert complaints == [f"{tmp_path / 'mei'} is empty: what was in it is revoked"]
    again = Tokens(settings, complaints.append)
    assert (len(complaints), again.person(MEI)) == (2, None), "a server that starts now says so, and starts"
    (tmp_path / "mei").write_text("new-" + MEI, "utf-8")
    assert tokens.person("new-" + MEI) == again.person("new-" + MEI) == Person("mei", "operator")


def test_a_file_that_is_being_written_gives_its_new_token_as_soon_as_that_is_whole(tmp_path: Path) -> None:
    tokens = Tokens([token(tmp_path / "mei", MEI)])
    new = "new-" + MEI
    with (tmp_path / "mei").open("w", encoding="ascii") as file:  # as `>` does in a shell: it is empty now
        assert tokens.person(MEI) is None
        file.write(new[:10])
        file.flush()
        assert tokens.person(new[:10]) is None
        file.write(new[10:])
    assert tokens.person(new) == Person("mei", "operator")


def test_a_check_says_which_tokens_are_revoked(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, webhook_secrets=[])
    (tmp_path / "otto").write_text("", "utf-8")
    found = [(one.status, one.said) for one in check_server(settings) if one.check == "server"]
    assert found == [
        ("warning", f"{tmp_path / 'otto'} is empty: what was in it is revoked"),
        ("ok", "2 tokens and 0 webhook secrets can be read"),
    ]


def test_what_servers_sign_with_stays_when_its_file_is_emptied(tmp_path: Path) -> None:
    complaints: list[str] = []
    (tmp_path / "secret").write_text("s" * 40, "utf-8")
    secrets = SigningSecrets([Secret(file=tmp_path / "secret")], complaints.append)
    (tmp_path / "secret").write_text("", "utf-8")
    assert secrets.values() == ["s" * 40], "or every delivery would be refused while the file is written"
    assert "the value before stays in use" in complaints[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("short", "at least 32 characters"),
        ("two words " + MEI, "one line of ASCII"),
        (f"{MEI}\n{LI}", "one line of ASCII"),
        ("蚂" * 40, "one line of ASCII"),
        ("m" * 5000, "at most 4096 bytes"),
    ],
)
def test_a_file_without_a_good_secret_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        Tokens([token(tmp_path / "mei", text)])
    assert not text or text[:6] not in str(error.value).replace(str(tmp_path), "")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        Tokens([Token(name="mei", role="viewer", file=tmp_path / "none")])


def test_two_people_have_two_tokens(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="have the same token"):
        Tokens([token(tmp_path / "mei", MEI), token(tmp_path / "li", MEI, "li")])
    with pytest.raises(ValidationError, match="two tokens with the name mei"):
        ServerSettings(tokens=(token(tmp_path / "mei", MEI), token(tmp_path / "li", LI)))


def test_a_signature_needs_the_secret_itself(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"sha256:{'0' * 64}", "utf-8")
    with pytest.raises(UserError, match="give the secret"):
        SigningSecrets([Secret(file=tmp_path / "secret")])


def test_a_secret_comes_from_one_place() -> None:
    with pytest.raises(ValidationError, match="either `file` or `env`"):
        Secret()
