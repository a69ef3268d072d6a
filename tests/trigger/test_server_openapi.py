"""The server does what its OpenAPI says, whatever schemathesis makes of it."""

from collections.abc import Iterator
from itertools import product

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import load_all_checks
from schemathesis.generation import GenerationMode
from support.trigger_page import Lineage, Pointing, without_comparison
from support.trigger_server import TOKENS, Running, running, settings_of

load_all_checks()
REFUSES = ["400", "401", "404", "409", "413", "415", "422"]
"""What a request gets that is not as described, and that schemathesis takes for an answer: 413 if it is large."""
ROWS = [b"day,model,right,rows\n2026-11-28,antgmm,1,2\n", b"day,model,right,rows\n2026-11-28,antgmm-compressed,2,2\n"]
LINES = [b'{"day": "2026-11-28", "model": "antgmm", "right": 1, "rows": 2}\n']
schemathesis.openapi.media_type("text/csv", st.sampled_from(ROWS))  # which no schema describes
schemathesis.openapi.media_type("application/x-ndjson", st.sampled_from(LINES))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings = without_comparison(settings_of(tmp_path_factory.mktemp("openapi")))
    with running(settings, aliases=Pointing(Lineage())) as found:
        yield found


def check_all(server: Running, examples: int) -> None:
    """Ask for everything that is described, as an administrator, with made-up values, and for what is there: answers
    have to be those that are described."""
    key = server.ask("POST", "/api/v1/models/antgmm/fire", "otto").json["key"]
    there = {"model": "antgmm", "key": key}
    headers = {"Authorization": f"Bearer {TOKENS['ada']}"}
    published = server.ask("GET", "/openapi.json").json
    for method in (method for methods in published["paths"].values() for method in methods.values()):
        method.pop("security", None)  # each request here has a token: schemathesis must not expect that it has none
    config = schemathesis.Config.from_dict({"checks": {"negative_data_rejection": {"expected-statuses": REFUSES}}})
    described = schemathesis.openapi.from_dict(published, config=config)
    for found, mode in product(described.get_all_operations(), GenerationMode):
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not (operation.query or operation.body):
            continue

        @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
        @given(operation.as_strategy(mode), st.booleans())
        def check(case: schemathesis.Case, real: bool) -> None:
            if real:
                case.path_parameters = {name: there[name] for name in case.path_parameters or {}}
            case.call_and_validate(base_url=server.address, headers=headers)

        check()
    assert server.metric("acts_total", what="append rows", outcome="done"), "rows that are right are taken"
    seen = {status for status in ("200", "404", "409", "422") if answered(server, status)}
    assert seen == {"200", "404", "409", "422"}


def answered(server: Running, status: str) -> float:
    """How many answers had that status."""
    (found,) = server.service.metrics.requests.collect()
    return sum(one.value for one in found.samples if one.name.endswith("_total") and one.labels["status"] == status)


def test_a_few_requests_of_every_kind_are_answered_as_described(server: Running) -> None:
    check_all(server, examples=5)


@pytest.mark.long
def test_many_requests_of_every_kind_are_answered_as_described(server: Running) -> None:
    check_all(server, examples=250)


def test_the_description_says_that_tokens_are_needed(server: Running) -> None:
    found = server.ask("GET", "/openapi.json").json
    assert found["openapi"].startswith("3.")
    for path, methods in found["paths"].items():
        for described in methods.values():
            assert bool(described.get("security")) == path.startswith("/api/"), path
            assert described["description"]


def test_the_pages_of_fastapi_that_load_scripts_from_elsewhere_are_off(server: Running) -> None:
    assert {server.ask("GET", path).status for path in ("/docs", "/redoc")} == {404}
