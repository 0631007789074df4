"""Every answer of every route is what the description says, whatever was sent."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError

from rankmill.scoring.engines.choose import concrete
from rankmill.scoring.load import check_model
from rankmill.scoring.options import ScorerOptions
from rankmill.serving.backend import ModelInfo
from rankmill.serving.dialects.dialect import Dialect
from rankmill.serving.dialects.routes import ROUTES, Route, choose
from rankmill.serving.keys import KEYS_VARIABLE, Keys
from rankmill.settings.gateway import GatewaySettings
from tests.scoring.tiny_llms import save_tiny_llm
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
    "sglang": _PLAIN | {"instruct": "Judge.", "model": "instructed"},
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


def instructed(folder: Path) -> ModelInfo:
    """A model that takes instructions."""
    options = concrete(ScorerOptions(model=str(save_tiny_llm(folder, "qwen3")), threads=1))
    return ModelInfo(name="instructed", card=check_model(options), options=options)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("models")
    with live(GatewaySettings(max_documents=5), tiny(folder), instructed(folder / "instructed")) as running:
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
    conforms(description, operation, answer)


def conforms(description: dict[str, Any], operation: dict[str, Any], answer: Answer) -> None:
    assert str(answer.status) in operation["responses"], answer
    response = operation["responses"][str(answer.status)]
    schema = response["content"]["application/json"]["schema"]
    # references begin at the root of the description
    Draft202012Validator({**schema, "components": description["components"]}).validate(answer.json)
    assert {name.lower() for name in response["headers"]} <= answer.headers.keys()


@pytest.mark.parametrize(
    ("route", "dialect"), SPOKEN, ids=[f"{route.path} {dialect.name}" for route, dialect in SPOKEN]
)
def test_a_good_request_and_bad_ones(server: Live, description: dict[str, Any], route: Route, dialect: Dialect) -> None:
    body = VALID[dialect.name]
    model = body.get("model", "tiny")
    counted = f'rankmill_requests_total{{dialect="{dialect.name}",model="{model}",route="{route.path}",status="2xx"}}'
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


PROBES = ("/healthz", "/readyz", "/health", "/.well-known/ready")
INFORMATION = ("/info", "/meta", "/v1/models", "/v1/models/tiny", "/v1/models/canary", "/v1/cluster/auth")


@pytest.mark.parametrize("path", PROBES + INFORMATION)
def test_what_it_says_about_itself_is_as_described(server: Live, description: dict[str, Any], path: str) -> None:
    template = "/v1/models/{model}" if path.startswith("/v1/models/") else path

    answer = server.ask("GET", path)

    operation = description["paths"][template]["get"]
    conforms(description, operation, answer)
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    with pytest.raises(ValidationError):  # it says something
        Draft202012Validator({**schema, "components": description["components"]}).validate({})


def test_keys_are_described_as_they_are_accepted(description: dict[str, Any]) -> None:
    keys = Keys(None, {KEYS_VARIABLE: "secret"})
    schemes = description["components"]["securitySchemes"]
    assert [list(one) for one in description["security"]] == [[name] for name in schemes]
    for scheme in schemes.values():
        bearer = scheme["type"] == "http"
        name, key = ("authorization", "Bearer secret") if bearer else (scheme["name"].lower(), "secret")
        assert keys.accept([(name.encode(), key.encode())])
    assert {scheme.get("name") for scheme in schemes.values()} == {None, "Authorization", "X-Api-Key", "Api-Key"}


def test_refusals_are_described_with_their_headers(description: dict[str, Any]) -> None:
    responses = description["paths"]["/rerank"]["post"]["responses"]
    found = {status: set(response["headers"]) - {"X-Request-Id"} for status, response in responses.items()}
    assert {status: names for status, names in found.items() if names and status != "200"} == {
        "401": {"WWW-Authenticate"},
        "405": {"Allow"},
        "429": {"Retry-After"},
        "503": {"Retry-After"},
    }


def test_a_shared_path_says_how_a_dialect_is_chosen(description: dict[str, Any]) -> None:
    for route in ROUTES:
        operation = description["paths"][route.path.replace(":path}", "}")]["post"]
        if len(route.dialects) == 1:
            assert ("MessagePack" in operation.get("description", "")) is route.dialects[0].msgpack
            continue
        lines = operation["description"].splitlines()
        assert {f"- {sign.text}: {sign.dialect.name}" for sign in route.signs} <= set(lines)
        assert {line.rpartition(": ")[2] for line in lines if line.startswith("- ")} >= {
            dialect.name for dialect in route.dialects[:-1]
        }
        assert lines[-1] == f"Any other body is read in those of {route.dialects[-1].name}."


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/score", {"text_1": None, "text_2": ["a"]}),
        ("/score", {"text_1": "q", "text_2": []}),
        ("/score", {"text_1": "q", "documents": ["a"]}),
        ("/score", {"text_1": "q", "text_2": ["a"], "normalize": True}),
        ("/v1/rerank", _PLAIN | {"activation": "raw", "raw_scores": True}),
    ],
)
def test_what_is_refused_is_not_described(
    server: Live, description: dict[str, Any], route: str, body: dict[str, Any]
) -> None:
    answer = server.post(body, route)
    assert answer.status == 400
    name = choose(route, body).request_model.__name__
    schema = {"$ref": f"#/components/schemas/{name}", "components": description["components"]}
    assert not Draft202012Validator(schema).is_valid(body)
