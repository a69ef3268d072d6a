"""A delivery of MLflow's webhook counts only if it is genuine, recent, and what MLflow sends."""

import base64
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.webhooks.delivery import _generate_hmac_signature

from lmmpress.trigger.server.deliveries import ID, SIGNATURE, TIMESTAMP, WINDOW, Delivery, Refused, open_delivery, sign

SECRET, OLD, OTHER = "s" * 32, "o" * 32, "x" * 32
NOW = 1_800_000_000.0


def body_of(entity: str = "model_version", action: str = "created", **data: Any) -> bytes:
    event = {"entity": entity, "action": action, "timestamp": "2027-01-15T08:00:00+00:00"}
    return json.dumps(event | {"data": {"name": "antgmm", "version": "2", "run_id": None} | data}).encode()


def headers_of(body: bytes, secret: str = SECRET, identifier: str = "d-1", at: float = NOW) -> dict[str, str]:
    stamp = str(int(at))
    return {ID: identifier, TIMESTAMP: stamp, SIGNATURE: sign(secret, identifier, stamp, body)}


def opened(body: bytes, headers: dict[str, str] | None = None, *secrets: str) -> Delivery | Refused:
    return open_delivery(headers_of(body) if headers is None else headers, body, secrets or [SECRET], NOW)


def status(found: Delivery | Refused) -> int:
    assert isinstance(found, Refused)
    return found.status


def test_mlflow_signs_as_we_do() -> None:
    body = body_of(name="蚂蚁")
    assert sign(SECRET, "d", "17", body) == _generate_hmac_signature(SECRET, "d", "17", body.decode())


def test_a_genuine_delivery_names_model_and_version() -> None:
    found = opened(body_of())
    assert isinstance(found, Delivery)
    assert (found.id, found.event, found.model, found.version) == ("d-1", "model_version.created", "antgmm", "2")


def test_an_alias_that_was_set_names_its_model() -> None:
    found = opened(body_of("model_version_alias", alias="release"))
    assert isinstance(found, Delivery)
    assert found.model == "antgmm"


@pytest.mark.parametrize(
    ("entity", "action"),
    [("registered_model", "created"), ("prompt", "created"), ("model_version_tag", "set"), ("a", "b")],
)
def test_other_events_are_genuine_and_name_no_model(entity: str, action: str) -> None:
    found = opened(body_of(entity, action, version=7))
    assert isinstance(found, Delivery)
    assert found.model is None


def test_two_secrets_hold_during_a_rotation_and_one_afterwards() -> None:
    body = body_of()
    signed_with_old = headers_of(body, OLD)
    assert isinstance(opened(body, signed_with_old, SECRET, OLD), Delivery)
    assert status(opened(body, signed_with_old, SECRET)) == 401


def test_one_of_several_signatures_suffices() -> None:
    body = body_of()
    headers = headers_of(body)
    headers[SIGNATURE] = f"v2,abc v1,AAAA {headers[SIGNATURE]}"
    assert isinstance(opened(body, headers), Delivery)


def test_without_a_secret_no_delivery_counts() -> None:
    body = body_of()
    assert status(open_delivery(headers_of(body), body, [], NOW)) == 403


@pytest.mark.parametrize("offset", [-WINDOW - 1, WINDOW + 1])
def test_a_delivery_outside_of_five_minutes_is_refused(offset: float) -> None:
    body = body_of()
    found = opened(body, headers_of(body, at=NOW + offset))
    assert (status(found), getattr(found, "kind", "")) == (401, "expired")
    assert isinstance(opened(body, headers_of(body, at=NOW + 0.99 * offset)), Delivery)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (SIGNATURE, ""),
        (SIGNATURE, "v1,"),
        (SIGNATURE, "v1,not base64!"),
        (SIGNATURE, "v1,ä"),
        (SIGNATURE, "v1," + base64.b64encode(bytes(32)).decode()),
        (SIGNATURE, "v0," + sign(SECRET, "d-1", str(int(NOW)), body_of()).removeprefix("v1,")),
        (TIMESTAMP, ""),
        (TIMESTAMP, str(int(NOW) + 1)),
        (TIMESTAMP, "-1"),
        (TIMESTAMP, "1e9"),
        (TIMESTAMP, "٣"),
        (TIMESTAMP, "9" * 5000),
        (ID, ""),
        (ID, "d-2"),
        (ID, "d\n1"),
        (ID, "d" * 201),
    ],
)
def test_a_header_that_was_changed_is_refused(name: str, value: str) -> None:
    assert status(opened(body_of(), headers_of(body_of()) | {name: value})) == 401


@pytest.mark.parametrize("name", [ID, TIMESTAMP, SIGNATURE])
def test_a_header_that_is_missing_is_refused(name: str) -> None:
    headers = headers_of(body_of())
    del headers[name]
    assert status(opened(body_of(), headers)) == 401


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"entity": NaN}',
        b'{"entity": "model_version", "action": "created"}',
        body_of(name=None),
        body_of(name=""),
        body_of(name=["antgmm"]),
        body_of(name="n" * 501),
        body_of(version=2),
        body_of(version={}),
        body_of().replace(b'"created"', b"true"),
        json.dumps({"entity": "model_version", "action": "created", "data": []}).encode(),
    ],
)
def test_a_genuine_body_of_wrong_types_is_refused(body: bytes) -> None:
    assert status(opened(body)) == 400


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.text(max_size=50), st.text(max_size=20), st.text(max_size=100))
def test_nothing_that_strangers_send_is_taken_or_breaks(body: bytes, identifier: str, stamp: str, signed: str) -> None:
    headers = {ID: identifier, TIMESTAMP: stamp, SIGNATURE: signed}
    assert status(open_delivery(headers, body, [SECRET, OLD], NOW)) == 401


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "entity": st.sampled_from(["model_version", "model_version_alias"]) | json_values,
            "action": st.just("created") | json_values,
            "data": st.fixed_dictionaries({}, optional={"name": json_values, "version": json_values}) | json_values,
            "more": json_values,
        },
    )
)
def test_whatever_is_signed_is_read_or_refused_and_never_breaks(value: Any) -> None:
    found = opened(json.dumps(value).encode())
    if isinstance(found, Refused):
        assert found.status == 400
    elif found.model is not None:
        assert found.model == value["data"]["name"]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_one_changed_byte_spoils_a_signature(data: st.DataObject) -> None:
    body = body_of()
    at = data.draw(st.integers(0, len(body) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != body[at]))
    assert status(opened(body[:at] + bytes([other]) + body[at + 1 :], headers_of(body))) == 401


def test_the_clock_of_a_delivery_is_this_machines() -> None:
    body = body_of()
    assert isinstance(open_delivery(headers_of(body, at=time.time()), body, [SECRET], time.time()), Delivery)
