"""Every answer of every route is what the description says, whatever was sent."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from rankmill.serving.dialects.dialect import Dialect
from rankmill.serving.dialects.routes import ROUTES, Route
from rankmill.settings.gateway import GatewaySettings
from tests.serving.live import Answer, Live, eventually, live, tiny

_PLAIN: dict[str, Any] = {"query": "a fox", "documents": ["the quick fox", "water", ""]}
VALID: dict[str, dict[str, Any]] = {
    "standard": _PLAIN,
    "fireworks": _PLAIN,
    "zeroentropy": _PLAIN,
    "cohere": _PLAIN | {"model": "tiny"},
    "tei": {"query": "a fox", "texts": ["the quick fox", "water"]},
    "mixedbread": {"query": "a fox", "input": ["the quick fox", "water"]},
    "dashscope": {"input": _PLAIN},
    "weaviate": _PLAIN | {"property": ""},
    "infinity": _PLAIN | {"raw_scores": False},
    "voyage": _PLAIN | {"top_k": 2},
    "sglang": _PLAIN | {"instruct": None},
    "vllm_rerank": _PLAIN | {"truncation_side": "right"},
    "vllm_score": {"text_1": "a fox", "text_2": ["the quick fox", "water"]},
    "pinecone": _PLAIN | {"parameters": {}},
    "nim": {"query": {"text": "a fox"}, "passages": [{"text": "the quick fox"}, {"text": "water"}]},
    "sie": {"query": {"text": "a fox"}, "items": [{"text": "the quick fox"}, {"id": "w", "text": "water"}]},
    "deepinfra": {"queries": ["a fox"], "documents": ["the quick fox", "water"]},
}
"""A body of each dialect, which says whose it is."""
SPOKEN = [(route, dialect) for route in ROUTES for dialect in route.dialects]
LARGEST_ERROR = 2048

_TEXTS = st.text(max_size=5)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10) | st.floats(allow_nan=False, allow_infinity=False) | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(GatewaySettings(max_documents=5), tiny(tmp_path_factory.mktemp("models"))) as running:
        yield running


@pytest.fixture(scope="module")
def description(server: Live) -> dict[str, Any]:
    found: dict[str, Any] = server.ask("GET", "/openapi.json").json
    return found


def send(server: Live, route: Route, body: Any, **headers: str) -> Answer:
    path = route.path.replace("{model:path}", "tiny")
    return server.post(body, path, {"Accept": "application/json", **headers})


def check(description: dict[str, Any], route: Route, answer: Answer) -> None:
    operation = description["paths"][route.path.replace(":path}", "}")][route.method.lower()]
    assert str(answer.status) in operation["responses"], answer
    schema = operation["responses"][str(answer.status)]["content"]["application/json"]["schema"]
    # references begin at the root of the description
    Draft202012Validator({**schema, "components": description["components"]}).validate(answer.json)


@pytest.mark.parametrize(
    ("route", "dialect"), SPOKEN, ids=[f"{route.path} {dialect.name}" for route, dialect in SPOKEN]
)
def test_a_good_request_and_bad_ones(server: Live, description: dict[str, Any], route: Route, dialect: Dialect) -> None:
    body = VALID[dialect.name]
    counted = f'rankmill_requests_total{{dialect="{dialect.name}",model="tiny",route="{route.path}",status="2xx"}}'
    before = server.metric(counted)
    answer = send(server, route, body)
    assert answer.status == 200, answer.body
    check(description, route, answer)
    eventually(lambda: server.metric(counted) == before + 1)

    for bad, headers in (
        (b"{", {}),
        (body | {"model": "canary"}, {}),
        (body | {"query": 5}, {}),
        (body | {"documents": ["canary"] * 6, "texts": ["canary"] * 6}, {}),
        (body, {"Content-Encoding": "gzip"}),
        (body, {"X-Request-Timeout-Ms": "soon"}),
    ):
        refused = send(server, route, bad, **headers)
        check(description, route, refused)
        assert b"canary" not in refused.body or refused.status == 200


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(SPOKEN), st.data())
def test_no_request_makes_it_fail(
    server: Live, description: dict[str, Any], spoken: tuple[Route, Dialect], data: st.DataObject
) -> None:
    route, dialect = spoken
    names = st.sampled_from(sorted(dialect.request_model.model_fields))
    changes = data.draw(st.dictionaries(names | _TEXTS, _VALUES | st.lists(_TEXTS, max_size=3), max_size=3))
    answer = send(server, route, VALID[dialect.name] | changes)
    assert answer.status < 500, answer.body
    check(description, route, answer)
    if answer.status != 200:
        assert len(answer.body) <= LARGEST_ERROR
