"""Which dialect a path and a body belong to."""

from typing import Any

import pytest
from starlette.routing import compile_path

from rankmill.serving.dialects import routes
from rankmill.serving.dialects.routes import ROUTES, choose
from rankmill.serving.dialects.signs import SIGNS

ANY = {"query": "q", "documents": ["a"]}
IN_PARTS = {"content": [{"type": "text", "text": "a"}]}
OWN = ({"return_logits": True}, {"min_score": 0.0}, {"activation": "raw"}, {"long_documents": "chunk"})


@pytest.mark.parametrize(
    ("body", "dialect"),
    [
        ({"query": "q", "texts": ["a"]}, "tei"),
        ({"query": "q", "texts": ["a"], "raw_scores": False, "top_n": 2}, "tei"),
        ({"query": "q", "input": ["a"], "top_k": 1}, "mixedbread"),
        ({"input": {"query": "q", "documents": ["a"]}, "parameters": {}}, "dashscope"),
        (ANY | {"property": ""}, "weaviate"),
        (ANY | {"raw_scores": False, "return_documents": True}, "infinity"),
        (ANY | {"top_k": None}, "voyage"),
        (ANY | {"truncation": True}, "voyage"),
        (ANY | {"truncation": None}, "voyage"),
        (ANY | {"instruct": "i"}, "sglang"),
        (ANY | {"use_activation": None}, "vllm_rerank"),
        (ANY | {"truncate_prompt_tokens": 3}, "vllm_rerank"),
        ({"query": IN_PARTS, "documents": ["a"]}, "vllm_rerank"),
        ({"query": "q", "documents": [IN_PARTS, "b"]}, "vllm_rerank"),
        ({"query": "q", "documents": IN_PARTS}, "vllm_rerank"),
        ({"query": "q", "documents": ["a", IN_PARTS]}, "standard"),
        ({"query": "q", "documents": [IN_PARTS | {"text": "a"}]}, "standard"),
        ({"query": "q", "documents": [{"content": "a"}]}, "standard"),
        ({"query": "q", "documents": [{}]}, "standard"),
        ({"query": {}, "documents": []}, "standard"),
        (ANY, "standard"),
        (ANY | {"instruction": "i", "return_logits": True}, "standard"),
        ({}, "standard"),
        ([], "standard"),
        (None, "standard"),
        (["texts"], "standard"),
    ],
)
@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
def test_shared_paths(path: str, body: Any, dialect: str) -> None:
    assert choose(path, body).name == dialect


@pytest.mark.parametrize("own", OWN, ids=str)
@pytest.mark.parametrize(
    "others",
    [{"raw_scores": True}, {"top_k": 1}, {"instruct": "i"}, {"use_activation": True}, {"rank_fields": ["text"]}],
    ids=str,
)
def test_own_fields_are_nobody_elses(own: dict[str, Any], others: dict[str, Any]) -> None:
    nulls = dict.fromkeys(own)
    for path in ("/rerank", "/v1/rerank"):
        assert choose(path, ANY | others | own).name == "standard"
        assert choose(path, ANY | others | nulls) is choose(path, ANY | others)
    # where they are unknown they are refused, not passed over
    assert choose("/v2/rerank", ANY | others | own).name == "cohere"


@pytest.mark.parametrize(("key", "value"), [("texts", ["a"]), ("input", ["a"]), ("property", "")])
def test_fields_that_hold_the_documents_come_first(key: str, value: Any) -> None:
    assert choose("/rerank", ANY | {key: value, "activation": "raw"}) is choose("/rerank", ANY | {key: value})


@pytest.mark.parametrize(
    "key", ["texts", "input", "property", "raw_scores", "instruct", "parameters", "rank_fields", "return_logits"]
)
def test_a_null_is_no_sign(key: str) -> None:
    assert choose("/rerank", ANY | {key: None}).name == "standard"
    assert choose("/rerank", ANY | {key: None, "top_k": None}).name == "voyage"


def test_the_table_of_signs_is_what_the_code_does() -> None:
    rows = [" ".join(line.split()) for line in (routes.__doc__ or "").splitlines() if line.startswith("| `")]

    assert rows == [f"| {sign.text} | {sign.dialect.name} |" for sign in SIGNS]


@pytest.mark.parametrize(
    ("path", "body", "dialect"),
    [
        ("/rerank", ANY | {"rank_fields": ["text"]}, "pinecone"),
        ("/v1/rerank", ANY | {"rank_fields": ["text"]}, "standard"),
        ("/v2/rerank", ANY | {"rank_fields": ["text"]}, "cohere"),
        ("/v2/rerank", ANY | {"top_k": 3}, "cohere"),
        ("/v2/rerank", ANY | {"use_activation": False}, "vllm_rerank"),
        ("/v2/rerank", {"query": "q", "documents": [IN_PARTS]}, "vllm_rerank"),
        ("/v2/rerank", ANY | {"return_logits": True}, "cohere"),
        ("/v1/rerank", {"query": "q", "documents": [{"content": "a"}], "rank_fields": ["content"]}, "standard"),
        ("/infinity/rerank", ANY, "infinity"),
        ("/inference/v1/rerank", ANY, "fireworks"),
    ],
)
def test_paths_with_fewer_dialects(path: str, body: Any, dialect: str) -> None:
    assert choose(path, body).name == dialect


@pytest.mark.parametrize(
    ("path", "template", "parameters"),
    [
        ("/inference/v1/rerank", "/inference/v1/rerank", {}),
        ("/inference/BAAI/bge", "/inference/{model:path}", {"model": "BAAI/bge"}),
        ("/v1/inference/BAAI/bge", "/v1/inference/{model:path}", {"model": "BAAI/bge"}),
        ("/v1/score", "/v1/score", {}),
        ("/v1/score/BAAI/bge", "/v1/score/{model:path}", {"model": "BAAI/bge"}),
        ("/v1/retrieval/a/b/reranking", "/v1/retrieval/{model:path}/reranking", {"model": "a/b"}),
        ("/v1/models/rerank", "/v1/models/rerank", {}),
    ],
)
def test_routes_in_their_order_find_a_path(path: str, template: str, parameters: dict[str, str]) -> None:
    found = [(route, match) for route in ROUTES if (match := compile_path(route.path)[0].match(path))]

    route, match = found[0]
    assert (route.path, match.groupdict()) == (template, parameters)


def test_every_path_is_there_once_and_only_sie_speaks_msgpack() -> None:
    assert len({route.path for route in ROUTES}) == len(ROUTES)
    assert {dialect.name for route in ROUTES for dialect in route.dialects if dialect.msgpack} == {"sie"}


def test_an_unknown_path_is_the_callers_bug() -> None:
    with pytest.raises(KeyError):
        choose("/v3/rerank", ANY)
