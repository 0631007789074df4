"""Nulls, numbers, booleans, documents and limits: what a body may hold and what it then means."""

import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rankmill.serving.dialects.cohere import COHERE
from rankmill.serving.dialects.deepinfra import DEEPINFRA
from rankmill.serving.dialects.dialect import Dialect
from rankmill.serving.dialects.nim import NIM
from rankmill.serving.dialects.routes import ROUTES, Route, choose
from rankmill.serving.dialects.sie import SIE
from rankmill.serving.dialects.standard import STANDARD
from rankmill.serving.dialects.tei import TEI
from rankmill.serving.dialects.vllm_rerank import VLLM_RERANK
from rankmill.serving.dialects.vllm_score import VLLM_SCORE
from rankmill.serving.dialects.wire_format import WireFormat
from rankmill.serving.request_error import Kind, RequestError
from tests.serving.dialects.answers import result_of

BODY = {"model": "m", "query": "q", "documents": ["a", "b", "c"]}
CANARY = "hunter2"


def refused(dialect: Dialect, body: Any, path: Mapping[str, str] | None = None) -> RequestError:
    with pytest.raises(RequestError) as caught:
        dialect.parse(body, path or {})
    return caught.value


@pytest.mark.parametrize("dialect", [STANDARD, COHERE, VLLM_RERANK], ids=lambda dialect: dialect.name)
def test_every_null_is_as_if_it_were_not_there(dialect: WireFormat[Any]) -> None:
    fields = dialect.request_model.model_fields
    nulls = {name: None for name, field in fields.items() if not field.is_required() and name not in BODY}

    assert len(nulls) > 5
    assert dialect.parse(BODY | nulls, {}) == dialect.parse(BODY, {})


@pytest.mark.parametrize("value", [0, -1, True, False, "2", 1.0, 1.5, [1]])
def test_top_n_is_a_whole_number_from_1(value: Any) -> None:
    assert refused(STANDARD, BODY | {"top_n": value}).field == "top_n"


def test_top_n_beyond_the_documents_is_all_of_them() -> None:
    request = STANDARD.parse(BODY | {"top_n": 10**30}, {})

    assert len(STANDARD.render(BODY, request, result_of(request, [1, 2, 3]))["results"]) == 3


@pytest.mark.parametrize("value", ["true", "True", True])
def test_a_boolean_may_be_a_string(value: Any) -> None:
    body = BODY | {"return_documents": value}
    request = STANDARD.parse(body, {})

    answer = STANDARD.render(body, request, result_of(request, [1, 2, 3]))

    assert [found["document"] for found in answer["results"]] == [{"text": "c"}, {"text": "b"}, {"text": "a"}]


@pytest.mark.parametrize("value", ["yes", 1, 0, "", []])
def test_nothing_else_is_a_boolean(value: Any) -> None:
    assert refused(STANDARD, BODY | {"return_documents": value}).kind is Kind.INVALID


def test_of_an_object_the_text_is_scored_and_the_object_comes_back() -> None:
    body = BODY | {"documents": [{"text": "a", "title": "t"}, "b"], "return_documents": True}
    request = STANDARD.parse(body, {})

    answer = STANDARD.render(body, request, result_of(request, [2, 1]))

    assert request.documents == ("a", "b")
    assert [found["document"] for found in answer["results"]] == [{"text": "a", "title": "t"}, {"text": "b"}]
    assert [found["document"] for found in answer["data"]] == ["a", "b"]


def test_rank_fields_are_joined_in_their_order_as_batch_joins_title_and_text() -> None:
    documents = [{"text": "fish", "title": "On", "year": None}, {"text": "frameworks"}, "plain"]

    request = STANDARD.parse(BODY | {"documents": documents, "rank_fields": ["title", "text", "year"]}, {})

    assert request.documents == ("On fish", "frameworks", "plain")


@pytest.mark.parametrize(
    ("documents", "rank_fields"),
    [
        ([{"title": CANARY}], None),
        ([{"image": CANARY}], None),
        ([{"text": {"nested": CANARY}}], None),
        ([{"text": CANARY}], [CANARY]),
        ([{CANARY: 1}], [CANARY]),
        ([3], None),
        ([[CANARY]], None),
        ([None], None),
        (CANARY, None),
        ({CANARY: CANARY}, None),
    ],
)
def test_a_document_that_is_no_text_is_refused_and_not_repeated(documents: Any, rank_fields: Any) -> None:
    error = refused(STANDARD, BODY | {"documents": documents, "rank_fields": rank_fields})

    assert error.kind is Kind.INVALID
    assert error.field is not None
    assert error.field.startswith("documents")
    assert CANARY not in str(error)


@pytest.mark.parametrize(
    "body",
    [
        {CANARY: CANARY},
        BODY | {"query": {CANARY: CANARY}},
        BODY | {"activation": CANARY},
        BODY | {"min_score": CANARY},
        BODY | {"model": {CANARY: [CANARY]}},
        BODY | {"documents": [{CANARY: {CANARY: object()}}]},
        [CANARY],
        CANARY,
    ],
)
def test_no_message_repeats_what_was_sent(body: Any) -> None:
    assert CANARY not in repr(refused(STANDARD, body))


def test_no_documents_is_a_kind_of_its_own() -> None:
    assert refused(STANDARD, BODY | {"documents": []}).kind is Kind.EMPTY
    assert refused(TEI, {"query": "q", "texts": []}).kind is Kind.EMPTY
    assert refused(VLLM_SCORE, {"text_1": "q", "text_2": []}).kind is Kind.EMPTY
    assert refused(NIM, {"query": {"text": "q"}, "passages": []}).kind is Kind.EMPTY


def test_empty_texts_are_texts() -> None:
    assert STANDARD.parse({"query": "", "documents": [""]}, {}).documents == ("",)


def test_own_extensions() -> None:
    body = BODY | {
        "return_logits": True,
        "min_score": 0.6,
        "activation": "sigmoid",
        "long_documents": "chunk",
        "instruction": "be strict",
        "max_tokens_per_doc": 7,
    }

    request = STANDARD.parse(body, {})
    answer = STANDARD.render(body, request, result_of(request, [1.0, -1.0, 3.0]))

    assert (request.activation, request.long_documents, request.instruction) == ("sigmoid", "chunk", "be strict")
    assert request.min_score == pytest.approx(0.6)
    assert request.max_document_tokens == 7
    assert [(found["index"], found["logit"], found["truncated"]) for found in answer["results"]] == [
        (2, 3.0, False),
        (0, 1.0, True),
    ]
    assert answer["model_revision"] == "abc"


@pytest.mark.parametrize(
    ("fields", "asks"),
    [
        ({"top_k": 2}, {"top_n": 2}),
        ({"top_k": 2, "top_n": 1}, {"top_n": 1}),
        ({"top_k": 1, "top_n": 2}, {"top_n": 2}),
        ({"truncation": False}, {"truncate": False}),
        ({"truncation": "true"}, {"truncate": True}),
        ({"max_tokens_per_query": 7}, {"max_query_tokens": 7}),
        ({"max_tokens_per_query": 0, "max_tokens_per_doc": 0}, {}),
    ],
)
def test_beside_own_fields_those_of_others_hold(fields: dict[str, Any], asks: dict[str, Any]) -> None:
    own = BODY | {"return_logits": True}

    found = choose("/v1/rerank", own | fields).parse(own | fields, {})

    assert found == replace(STANDARD.parse(own, {}), **asks)


@pytest.mark.parametrize(
    ("name", "value", "ours"),
    [
        ("raw_scores", False, "activation"),
        ("use_activation", CANARY, "activation"),
        ("instruct", CANARY, "instruction"),
        ("truncate_prompt_tokens", -1, "max_tokens_per_doc"),
    ],
)
def test_beside_own_fields_those_with_another_meaning_are_refused(name: str, value: Any, ours: str) -> None:
    body = BODY | {"min_score": 0.5, name: value}

    error = refused(choose("/rerank", body), body)

    assert str(error) == f"{name} means nothing here; send {ours} instead."
    assert (error.kind, error.field) == (Kind.INVALID, name)


@pytest.mark.parametrize("field", ["max_tokens_per_doc", "max_tokens_per_query"])
@pytest.mark.parametrize("value", [-1, True, "2", 1.5])
def test_a_number_of_tokens_is_whole_and_not_negative(field: str, value: Any) -> None:
    assert refused(STANDARD, BODY | {field: value}).field == field


def test_the_best_chunk_is_shown_where_a_document_had_several() -> None:
    request = STANDARD.parse(BODY, {})
    result = result_of(request, [3.0, 2.0, 1.0])
    with_chunks = type(result)(
        **{name: getattr(result, name) for name in result.__slots__ if name != "best"},
        best=np.array([[-1, -1], [10, 90], [-1, -1]], dtype=np.int32),
    )

    answer = STANDARD.render(BODY, request, with_chunks)

    assert [found.get("best_chunk") for found in answer["results"]] == [None, [10, 90], None]
    assert "best_chunk" not in answer["results"][0]


@pytest.mark.parametrize(("name", "shown"), [("top_k", True), ("truncation", True), (CANARY, False)])
def test_cohere_refuses_unknown_fields_and_names_only_known_ones(name: str, shown: bool) -> None:  # noqa: FBT001
    error = refused(COHERE, BODY | {name: 2})

    assert error.kind is Kind.UNKNOWN_FIELD
    assert str(error).startswith("unknown field: ")
    assert (name in str(error)) is shown


def test_cohere_needs_a_model_and_takes_spans() -> None:
    assert str(refused(COHERE, {"query": "q", "documents": ["a"]})) == "model is missing."
    spans = BODY | {"priority": 0, "relevant_spans": {"mode": "enabled", "threshold": 0.1}}
    assert COHERE.parse(spans, {}) == COHERE.parse(BODY, {})


@pytest.mark.parametrize(
    ("fields", "truncate", "activation"),
    [
        ({}, True, "sigmoid"),
        ({"truncate": None, "truncation_direction": "right"}, True, "sigmoid"),
        ({"truncate": True, "truncation_direction": "Left"}, False, "sigmoid"),
        ({"truncate": False, "raw_scores": True}, False, "raw"),
    ],
)
def test_tei(fields: dict[str, Any], truncate: bool, activation: str) -> None:  # noqa: FBT001
    request = TEI.parse({"query": "q", "texts": ["a"]} | fields, {})

    assert (request.truncate, request.activation) == (truncate, activation)


@pytest.mark.parametrize(
    ("fields", "truncate", "pair", "activation"),
    [
        ({}, False, None, "model"),
        ({"truncate_prompt_tokens": -1, "use_activation": True}, True, None, "model"),
        ({"truncate_prompt_tokens": 64, "use_activation": False}, True, 64, "raw"),
        ({"truncate_prompt_tokens": 64, "truncation_side": "left"}, False, 64, "model"),
        ({"truncate_prompt_tokens": None, "max_tokens_per_query": 0}, False, None, "model"),
    ],
)
def test_vllm(fields: dict[str, Any], truncate: bool, pair: int | None, activation: str) -> None:  # noqa: FBT001
    for dialect in (VLLM_RERANK, VLLM_SCORE):
        request = dialect.parse({"queries": "q", "query": "q", "documents": ["a"]} | fields, {})
        assert (request.truncate, request.max_pair_tokens, request.activation) == (truncate, pair, activation)


def test_the_headers_of_tei() -> None:
    request = TEI.parse({"query": "four", "texts": ["a", "敏捷"]}, {})
    seconds = {"read": 0.0012, "prepare": 0.0023, "score": 0.0104, "render": 0.0007}

    assert TEI.render_headers(request, result_of(request, [1, 2]), seconds) == {
        "x-compute-characters": "11",  # of the pairs
        "x-compute-tokens": "9",
        "x-compute-time": "14",
        "x-total-time": "14",
        "x-tokenization-time": "2",
        "x-inference-time": "10",
    }
    assert STANDARD.render_headers(request, result_of(request, [1, 2]), seconds) == {}


def test_vllm_refuses_what_vllm_removed() -> None:
    assert "use_activation" in str(refused(VLLM_RERANK, BODY | {"normalize": True}))


@pytest.mark.parametrize(
    ("left", "right"), [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")]
)
def test_vllm_scores_pairs_under_four_names(left: str, right: str) -> None:
    content = {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}

    assert VLLM_SCORE.parse({left: ["p", "q"], right: ["a", content]}, {}).pairs == (("p", "q"), ("a", "a\nb"))
    assert VLLM_SCORE.parse({left: "q", right: ["a", "b"]}, {}).pairs == (("q", "q"), ("a", "b"))
    assert VLLM_SCORE.parse({left: "q", right: "a"}, {}).pairs == (("q",), ("a",))
    assert str(refused(VLLM_SCORE, {left: ["p", "q"], right: ["a", "b", "c"]})) == (
        f"{left} has 2 texts and {right} has 3; send one for all, or as many of each."
    )


def test_vllm_ranks_one_document_as_it_ranks_a_list() -> None:
    part = {"content": [{"type": "text", "text": "a"}]}

    for documents in ("a", part, ["a"], [part]):
        assert VLLM_RERANK.parse({"query": part, "documents": documents}, {}).pairs == (("a",), ("a",))
    assert refused(VLLM_RERANK, {"query": "q", "documents": []}).kind is Kind.EMPTY


def test_images_are_refused() -> None:
    image = {"content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}

    assert refused(VLLM_SCORE, {"text_1": image, "text_2": "a"}).kind is Kind.INVALID
    assert refused(NIM, {"query": {"text": "q"}, "passages": [{"image": "data:"}]}).kind is Kind.INVALID
    assert refused(SIE, {"query": {"text": "q"}, "items": [{"images": ["x"]}]}).kind is Kind.INVALID


def test_nim_cuts_only_if_asked() -> None:
    body: dict[str, Any] = {"query": {"text": "q"}, "passages": [{"text": "a"}]}

    assert not NIM.parse(body, {}).truncate
    assert not NIM.parse(body | {"truncate": "NONE"}, {}).truncate
    assert NIM.parse(body | {"truncate": "END"}, {}).truncate


def test_deepinfra_takes_pairs() -> None:
    assert DEEPINFRA.parse({"queries": ["p", "q"], "documents": ["a", "b"]}, {"model": "m"}).queries == ("p", "q")
    assert DEEPINFRA.parse({"queries": ["p", "p"], "documents": ["a", "b"]}, {"model": "m"}).queries == ("p",)
    assert "3" in str(refused(DEEPINFRA, {"queries": ["p", "q"], "documents": ["a", "b", "c"]}))


def test_sie_limits_and_instructs() -> None:
    body = {"query": {"text": "q"}, "items": [{"text": "a"}], "instruction": "i", "options": {"max_seq_length": 64}}

    request = SIE.parse(body, {"model": "a/b"})

    assert (request.model, request.max_pair_tokens, request.instruction) == ("a/b", 64, "i")


def test_scores_follow_the_activation() -> None:
    raw = BODY | {"activation": "raw"}
    request = STANDARD.parse(raw, {})

    answer = STANDARD.render(raw, request, result_of(request, [1.5, 0.5, -2.0]))

    assert [found["relevance_score"] for found in answer["results"]] == [1.5, 0.5, -2.0]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_a_body_that_is_no_object_is_refused_on_every_path(route: Route) -> None:
    bodies: tuple[Any, ...] = (None, [], "x", 3, True)
    for body in bodies:
        assert str(refused(choose(route.path, body), body)) == "The body must be a JSON object."


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        (STANDARD, BODY | {"documents": [1] * 500_000}),
        (VLLM_RERANK, BODY | {"documents": [1] * 500_000}),
        (VLLM_SCORE, {"text_1": "q", "text_2": [1] * 500_000}),
        (NIM, {"query": {"text": "q"}, "passages": [1] * 500_000}),
        (SIE, {"query": {"text": "q"}, "items": [{}] * 500_000}),
        (COHERE, BODY | dict.fromkeys(map(str, range(500_000)))),
        (STANDARD, BODY | {"rank_fields": ["text"] * 500_000}),
    ],
)
def test_a_million_mistakes_cost_no_more_than_one(dialect: WireFormat[Any], body: dict[str, Any]) -> None:
    tracemalloc.start()
    refused(dialect, body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 1_000_000
