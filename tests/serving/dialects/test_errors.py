"""Every dialect's own error bodies and status codes."""

import json
import re
from typing import Any

import pytest

from rankmill.serving.dialects.dialect import Dialect
from rankmill.serving.dialects.routes import ROUTES
from rankmill.serving.limits import check_texts
from rankmill.serving.request import RerankRequest
from rankmill.serving.request_error import Kind, RequestError
from rankmill.settings.gateway import GatewaySettings

DIALECTS = {dialect.name: dialect for route in ROUTES for dialect in route.dialects}
SMALL = GatewaySettings(max_query_characters=5, max_document_characters=5)
OWN_400 = {Kind.INVALID, Kind.EMPTY, Kind.TOO_LONG, Kind.UNKNOWN_FIELD}
MESSAGE = "There is something wrong with them."


def error_of(dialect: str, kind: Kind) -> tuple[int, Any]:
    status, body = DIALECTS[dialect].render_error(RequestError(kind, MESSAGE, field="documents"))
    return status, json.loads(json.dumps(body))


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)
@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda dialect: dialect.name)
def test_every_kind_has_a_status_and_a_small_body_with_its_message(dialect: Dialect, kind: Kind) -> None:
    status, body = dialect.render_error(RequestError(kind, MESSAGE))

    own = {400, 422} if kind in OWN_400 else {424, 500} if kind is Kind.INTERNAL else {kind.status}
    assert status in own
    text = json.dumps(body)
    assert len(text) < 1000
    assert MESSAGE in text or (dialect.name == "infinity" and kind is Kind.UNAUTHORIZED)


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)
def test_nobody_but_tei_uses_424_and_nobody_retries_on_it(kind: Kind) -> None:
    found = {name for name in DIALECTS if error_of(name, kind)[0] == 424}
    assert found == ({"tei"} if kind is Kind.INTERNAL else set())


@pytest.mark.parametrize(
    ("dialect", "kind", "expected"),
    [
        ("cohere", Kind.INVALID, (400, {"message": MESSAGE})),
        ("cohere", Kind.UNKNOWN_FIELD, (422, {"message": MESSAGE})),
        ("cohere", Kind.OVERLOADED, (429, {"message": MESSAGE})),
        ("voyage", Kind.INVALID, (400, {"detail": MESSAGE})),
        ("voyage", Kind.UNAVAILABLE, (503, {"detail": MESSAGE})),
        ("tei", Kind.EMPTY, (400, {"error": MESSAGE, "error_type": "Empty"})),
        ("tei", Kind.INVALID, (422, {"error": MESSAGE, "error_type": "Validation"})),
        ("tei", Kind.TOO_LONG, (422, {"error": MESSAGE, "error_type": "Validation"})),
        ("tei", Kind.OVERLOADED, (429, {"error": MESSAGE, "error_type": "Overloaded"})),
        ("tei", Kind.INTERNAL, (424, {"error": MESSAGE, "error_type": "Backend"})),
        ("tei", Kind.UNAVAILABLE, (503, {"error": MESSAGE, "error_type": "Unhealthy"})),
        (
            "infinity",
            Kind.INVALID,
            (422, {"detail": [{"loc": ["body", "documents"], "msg": MESSAGE, "type": "value_error"}]}),
        ),
        (
            "infinity",
            Kind.OVERLOADED,
            (429, {"error": {"message": MESSAGE, "type": None, "param": None, "code": 429}}),
        ),
        ("infinity", Kind.UNAUTHORIZED, (401, {"detail": "Unauthorized"})),
        (
            "vllm_rerank",
            Kind.TOO_LONG,
            (400, {"error": {"message": MESSAGE, "type": "BadRequestError", "param": "input_tokens", "code": 400}}),
        ),
        (
            "vllm_score",
            Kind.UNKNOWN_MODEL,
            (404, {"error": {"message": MESSAGE, "type": "NotFoundError", "param": "documents", "code": 404}}),
        ),
        ("deepinfra", Kind.INVALID, (400, {"detail": {"error": MESSAGE}})),
        ("weaviate", Kind.INTERNAL, (500, {"error": MESSAGE})),
        ("zeroentropy", Kind.INVALID, (400, {"detail": MESSAGE})),
        ("dashscope", Kind.OVERLOADED, (429, {"code": "Throttling", "message": MESSAGE})),
        (
            "pinecone",
            Kind.OVERLOADED,
            (429, {"error": {"code": "RESOURCE_EXHAUSTED", "message": MESSAGE}, "status": 429}),
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Kind) else value if isinstance(value, str) else "",
)
def test_an_error_is_the_servers_own(dialect: str, kind: Kind, expected: tuple[int, Any]) -> None:
    assert error_of(dialect, kind) == expected


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        (Kind.INVALID, 400, "INVALID_INPUT"),
        (Kind.TOO_LONG, 400, "INPUT_TOO_LONG"),
        (Kind.UNKNOWN_MODEL, 404, "MODEL_NOT_FOUND"),
        (Kind.OVERLOADED, 429, "RATE_LIMIT"),
        (Kind.UNAVAILABLE, 503, "MODEL_LOADING"),
    ],
)
def test_sie_retries_by_these_codes(kind: Kind, status: int, code: str) -> None:
    found, body = error_of("sie", kind)

    assert (found, body["detail"]["code"], body["error"]["code"]) == (status, code, code)


def test_an_error_of_the_standard_dialect_satisfies_all_its_clients() -> None:
    status, body = error_of("standard", Kind.INVALID)

    assert status == 400  # infinity-client crashes on a 422 whose detail is a string
    assert body["message"] == MESSAGE  # Cohere
    assert body["detail"] == MESSAGE  # Jina, Xinference
    assert body["error"] == {"message": MESSAGE, "type": "invalid", "param": "documents", "code": 400}  # Together


def test_an_overload_says_so_in_the_standard_dialect() -> None:
    status, body = error_of("standard", Kind.OVERLOADED)

    assert (status, body["error"]["type"]) == (429, "overloaded")


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda dialect: dialect.name)
def test_a_limit_names_fields_as_the_dialect_does(dialect: Dialect) -> None:
    declared = dialect.request_model.model_json_schema()
    names = {name for part in (declared, *declared.get("$defs", {}).values()) for name in part.get("properties", ())}
    for query, documents in (("q" * 9, "d"), ("q", "d" * 9)):
        with pytest.raises(RequestError) as raised:
            check_texts(RerankRequest(queries=(query,), documents=(documents,)), SMALL)
        found = json.dumps(dialect.render_error(raised.value)[1])
        (name,) = re.findall(r"([a-z.]+) has a text of 9 characters", found)[:1]
        assert set(name.split(".")) <= names


def test_langchain_can_look_for_a_request_id_in_the_detail_of_nim() -> None:
    assert "reqId" not in error_of("nim", Kind.INVALID)[1]["detail"]
