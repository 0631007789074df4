"""The endpoint against its own OpenAPI description, by Schemathesis; and against bodies that no description allows."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from rankmill.serving.dialects.routes import ROUTES
from rankmill.serving.openapi import describe
from rankmill.serving.two_stages import TWO_STAGES
from rankmill.settings.gateway import GatewaySettings
from tests.serving.live import Live, live, tiny

DESCRIPTION = json.loads(json.dumps(describe(ROUTES, searching=True)))  # searches are refused as described
_FOUND = schemathesis.openapi.from_dict(DESCRIPTION).get_all_operations()
OPERATIONS = [found.ok() for found in _FOUND if isinstance(found, Ok)]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    allow_header_conformance,
]
PHASES = [Phase.explicit, Phase.generate]  # a failure is shown as it was found: shrinking it takes minutes
LARGEST_ERROR = 2048


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(GatewaySettings(max_documents=20), tiny(tmp_path_factory.mktemp("models"))) as running:
        yield running


def test_it_is_the_description_that_is_served(server: Live) -> None:
    assert server.ask("GET", "/openapi.json").json == json.loads(json.dumps(describe(ROUTES, searching=False)))
    assert len(OPERATIONS) == sum(map(len, DESCRIPTION["paths"].values()))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_what_schemathesis_makes_of_the_description_is_answered_as_described(server: Live, operation: Any) -> None:
    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES)
    @given(case=operation.as_strategy())
    def check(case: Any) -> None:
        case.call_and_validate(
            base_url=f"http://127.0.0.1:{server.port}",
            headers={"X-Request-Timeout-Ms": "30000"},  # it would ask for one millisecond, and get 504 as described
            checks=CHECKS,
        )

    check()


@pytest.mark.parametrize("path", [route.path for route in ROUTES if "{model:path}" in route.path])
def test_a_models_name_in_a_path_may_be_any_text(server: Live, path: str) -> None:
    """Schemathesis finds this one time in some hundred: a pattern's dot is not a line break."""
    name = quote("e/a\nb\rc\x85d\x0be\x0cf\u2028g\u2029h\r\ni", safe="")
    answer = server.ask("POST", path.replace("{model:path}", name), b"{}")
    responses = DESCRIPTION["paths"][path.replace(":path}", "}")]["post"]["responses"]
    schema = responses[str(answer.status)]["content"]["application/json"]["schema"]
    Draft202012Validator({**schema, "components": DESCRIPTION["components"]}).validate(answer.json)
    assert answer.status < 500


def json_text(value: Any, depth: int, number: str) -> bytes:
    """A value as no JSON library writes it: half surrogate pairs, NaN, numbers beyond all limits, any depth."""
    text = json.dumps(value).replace('"NUMBER"', number)
    return ("[" * depth + text + "]" * depth).encode()


TEXTS = st.text(st.characters(exclude_categories=()), max_size=6)  # half surrogate pairs among them
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.just("NUMBER"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)
NUMBERS = st.sampled_from(["1e999", "-1e999", "9" * 30, "9" * 5000, "1" + "0" * 400, "1e-999", "-0", "NaN", "0.1"])
FIELDS = sorted({name for route in ROUTES for spoken in route.dialects for name in spoken.request_model.model_fields})
BODIES = st.one_of(
    st.binary(max_size=100),
    st.builds(json_text, VALUES, st.integers(0, 40) | st.just(50_000), NUMBERS),
    st.builds(json_text, st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=8), st.just(0), NUMBERS),
)
ANSWERING = [(route.path, route.method) for route in ROUTES] + [(path, "POST") for path in TWO_STAGES]


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES)
@given(st.sampled_from(ANSWERING), BODIES, st.sampled_from(["application/json", "application/msgpack", "text/plain"]))
def test_no_body_makes_it_fail(server: Live, answering: tuple[str, str], body: bytes, content_type: str) -> None:
    path, method = answering
    answer = server.ask(method, path.replace("{model:path}", "tiny"), body, {"Content-Type": content_type})
    assert answer.status < 500, answer.body
    described = DESCRIPTION["paths"][path.replace(":path}", "}")][method.lower()]["responses"][str(answer.status)]
    schema = described["content"]["application/json"]["schema"]
    Draft202012Validator({**schema, "components": DESCRIPTION["components"]}).validate(answer.json)
    if answer.status != 200:
        assert len(answer.body) <= LARGEST_ERROR
