"""Every dialect's own error bodies and status codes."""

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from rankmill.serving.dialects.dashscope import DASHSCOPE
from rankmill.serving.dialects.dialect import Dialect
from rankmill.serving.dialects.mixedbread import MIXEDBREAD
from rankmill.serving.dialects.nim import NIM
from rankmill.serving.dialects.pinecone import PINECONE
from rankmill.serving.dialects.routes import ROUTES, choose
from rankmill.serving.dialects.sie import SIE
from rankmill.serving.dialects.vllm_score import SIDES, VLLM_SCORE
from rankmill.serving.dialects.wire_format import WireFormat
from rankmill.serving.limits import check_texts
from rankmill.serving.request_error import Kind, RequestError
from rankmill.settings.gateway import GatewaySettings
from tests.serving.dialects.recorded import RECORDED, Recorded

DIALECTS = {dialect.name: dialect for route in ROUTES for dialect in route.dialects}
SHORT_QUERIES, SHORT_DOCUMENTS = GatewaySettings(max_query_characters=5), GatewaySettings(max_document_characters=5)
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
        ("cohere", Kind.INVALID, (400, {"message": MESSAGE, "detail": MESSAGE})),
        ("cohere", Kind.UNKNOWN_FIELD, (422, {"message": MESSAGE, "detail": MESSAGE})),
        ("cohere", Kind.OVERLOADED, (429, {"message": MESSAGE, "detail": MESSAGE})),
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


def over_limit(dialect: Dialect, body: Any, path: Mapping[str, str], settings: GatewaySettings) -> Any:
    """The error's body, of a body that passes a limit."""
    request = dialect.parse(body, path)
    with pytest.raises(RequestError) as raised:
        check_texts(request, settings)
    return dialect.about(body).render_error(raised.value)[1]


@pytest.mark.parametrize("settings", [SHORT_QUERIES, SHORT_DOCUMENTS], ids=["query", "documents"])
@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded.client)
def test_a_limit_names_a_field_that_the_client_sent(recorded: Recorded, settings: GatewaySettings) -> None:
    error = over_limit(choose(recorded.path, recorded.body), recorded.body, recorded.parameters, settings)

    (name,) = re.findall(r"([a-z_0-9.]+) has a text of", json.dumps(error))[:1]
    sent: Any = recorded.body
    for part in name.split("."):
        sent = sent[part]
    assert sent


@pytest.mark.parametrize(("left", "right"), SIDES)
def test_a_limit_names_either_side_of_a_vllm_score(left: str, right: str) -> None:
    body = {left: "what is it?", right: ["a fish", "a framework"]}

    (queries, documents) = (
        over_limit(VLLM_SCORE, body, {}, settings)["error"] for settings in (SHORT_QUERIES, SHORT_DOCUMENTS)
    )

    assert queries["message"].startswith(f"{left} has a text of 11 characters")
    assert documents["message"].startswith(f"{right} has a text of 11 characters")
    assert documents["param"] == "input_tokens"


@pytest.mark.parametrize(
    ("path", "fields", "name"),
    [
        ("/sglang/v1/rerank", {"query": "q", "documents": ["a"], "instruct": "judge"}, "instruct"),
        ("/rerank", {"query": "q", "documents": ["a"], "instruction": "judge"}, "instruction"),
        (
            "/rerank",
            {"input": {"query": "q", "documents": ["a"]}, "parameters": {"instruct": "judge"}},
            "parameters.instruct",
        ),
    ],
)
def test_an_error_about_the_instruction_names_its_field(path: str, fields: dict[str, Any], name: str) -> None:
    dialect = choose(path, fields)
    dialect.parse(fields, {})

    error = dialect.about(fields).render_error(RequestError(Kind.TOO_LONG, "instruction is too long.", "instruction"))

    assert f'"{name} is too long."' in json.dumps(error[1])


def test_an_item_that_is_too_long_for_sie_has_a_code_of_its_own() -> None:
    body = {"query": {"text": "q"}, "items": [{"text": "a framework"}]}

    assert over_limit(SIE, body, {"model": "m"}, SHORT_DOCUMENTS)["detail"] == {
        "code": "INPUT_TOO_LONG",
        "message": "items has a text of 11 characters; at most 5 are accepted.",
    }


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda dialect: dialect.name)
def test_too_long_has_the_status_of_invalid(dialect: Dialect) -> None:
    statuses = {dialect.render_error(RequestError(kind, MESSAGE))[0] for kind in (Kind.TOO_LONG, Kind.INVALID)}

    assert len(statuses) == 1


@pytest.mark.parametrize(
    ("dialect", "body", "message"),
    [
        (NIM, {"query": "q", "passages": [{"text": "a"}]}, "query must be an object."),
        (NIM, {"query": {"text": "q"}, "passages": [{"text": "a"}, "b"]}, "passages[1] must be an object."),
        (NIM, {"query": {}, "passages": [{"text": "a"}]}, "query.text is missing."),
        (SIE, {"query": "q", "items": [{"text": "a"}]}, "query must be an object."),
        (SIE, {"query": {"text": "q"}, "items": ["a"]}, "items[0] must be an object."),
        (SIE, {"query": {"text": "q"}, "items": [{"text": "a"}], "options": 3}, "options must be an object."),
        (DASHSCOPE, {"input": "q"}, "input must be an object."),
        (DASHSCOPE, {"input": {"documents": ["a"]}}, "input.query is missing."),
        (PINECONE, {"query": "q", "documents": ["a"], "parameters": "END"}, "parameters must be an object."),
        (MIXEDBREAD, {"query": "q", "input": []}, "input is empty; it must hold at least one."),
        (VLLM_SCORE, {"text_1": {"content": ["a"]}, "text_2": "a"}, "text_1.content[0] must be an object."),
        (VLLM_SCORE, {"text_1": 3, "text_2": "a"}, "text_1 should be a string, an object or a list."),
        (VLLM_SCORE, {"text_1": "q", "text_2": ["a", 3]}, "text_2[1] should be a string or an object."),
        (VLLM_SCORE, {"text_1": "q", "text_2": []}, "text_2 is empty; it must hold at least one."),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name if isinstance(value, WireFormat) else "",
)
def test_a_body_of_another_shape_is_refused_in_its_own_words(dialect: Dialect, body: Any, message: str) -> None:
    with pytest.raises(RequestError) as raised:
        dialect.parse(body, {"model": "m"})

    assert str(raised.value) == message
    assert message in json.dumps(dialect.render_error(raised.value)[1])


def test_langchain_can_look_for_a_request_id_in_the_detail_of_nim() -> None:
    assert "reqId" not in error_of("nim", Kind.INVALID)[1]["detail"]
