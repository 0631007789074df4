"""Which dialect a path and a body belong to."""

from typing import Any

import pytest
from starlette.routing import compile_path

from rankmill.serving.dialects.routes import ROUTES, choose

ANY = {"query": "q", "documents": ["a"]}


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
        (ANY | {"instruct": "i"}, "sglang"),
        (ANY | {"use_activation": None}, "vllm_rerank"),
        (ANY | {"truncate_prompt_tokens": 3}, "vllm_rerank"),
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


@pytest.mark.parametrize(
    ("path", "body", "dialect"),
    [
        ("/rerank", ANY | {"rank_fields": ["text"]}, "pinecone"),
        ("/v1/rerank", ANY | {"rank_fields": ["text"]}, "standard"),
        ("/v2/rerank", ANY | {"rank_fields": ["text"]}, "cohere"),
        ("/v2/rerank", ANY | {"top_k": 3}, "cohere"),
        ("/v2/rerank", ANY | {"use_activation": False}, "vllm_rerank"),
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
