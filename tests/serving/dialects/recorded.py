"""What unmodified clients send, as it was recorded, and what they read of the answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

QUERY = "what is ray?"
DOCUMENTS = ["a fish", "a framework"]
LOGITS = (-1.0, 2.0)
"""Of the documents: the second is the better one."""
LOW, HIGH = 0.2689414322376251, 0.8807970881462097
"""Their sigmoids in float32."""


@dataclass(frozen=True)
class Recorded:
    """One client's request and what it takes from the answer."""

    client: str
    path: str
    body: dict[str, Any]
    asks: dict[str, Any]
    """Fields of the request that is made of it, beyond the query and the documents."""
    reads: Callable[[Any], Any]
    """Reads the answer as the client does."""
    gets: Any
    """What it finds."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Of the path."""
    dialect: str = ""


def results(answer: Any) -> Any:
    return [(found["index"], found["relevance_score"]) for found in answer["results"]]


def with_documents(answer: Any) -> Any:
    return [(found["index"], found["relevance_score"], found["document"]) for found in answer["results"]]


def with_usage(answer: Any) -> Any:
    return results(answer), answer["model"], answer["usage"]["total_tokens"]


def data(answer: Any) -> Any:
    return [(found["index"], found["relevance_score"]) for found in answer["data"]]


def data_documents(answer: Any) -> Any:
    return [(found["index"], found["relevance_score"], found["document"]) for found in answer["data"]]


def bare(answer: Any) -> Any:
    return [(found["index"], found["score"]) for found in answer]


def infinity_client(answer: Any) -> Any:
    assert answer["object"] == "rerank"
    return with_documents(answer), answer["model"], answer["usage"]["prompt_tokens"], answer["usage"]["total_tokens"]


def together(answer: Any) -> Any:
    assert answer["object"] == "rerank"
    return with_documents(answer), answer["model"], answer["usage"]


def rankings(answer: Any) -> Any:
    return [(found["index"], found["logit"]) for found in answer["rankings"]]


BEST_FIRST = [(1, HIGH), (0, LOW)]
OBJECTS = [(1, HIGH, {"text": "a framework"}), (0, LOW, {"text": "a fish"})]
STRINGS = [(1, HIGH, "a framework"), (0, LOW, "a fish")]
BODY = {"query": QUERY, "documents": DOCUMENTS, "model": "m"}
TEXTS = {"query": QUERY, "texts": DOCUMENTS}
USAGE = {"prompt_tokens": 9, "total_tokens": 9, "completion_tokens": 0}

RECORDED = (
    Recorded("cohere 7 ClientV2", "/v2/rerank", BODY | {"top_n": 2}, {"model": "m", "top_n": 2}, results, BEST_FIRST),
    Recorded(
        "cohere 7 Client",
        "/v1/rerank",
        BODY | {"top_n": 2, "return_documents": True},
        {"model": "m", "top_n": 2},
        with_documents,
        OBJECTS,
    ),
    Recorded(
        "cohere 7 Client, objects",
        "/v1/rerank",
        BODY | {"documents": [{"text": text, "title": "t"} for text in DOCUMENTS], "rank_fields": ["text"]},
        {"model": "m"},
        results,
        BEST_FIRST,
    ),
    Recorded(
        "langchain-cohere",
        "/v2/rerank",
        BODY | {"top_n": 2, "max_tokens_per_doc": None},
        {"model": "m", "top_n": 2},
        results,
        BEST_FIRST,
    ),
    Recorded(
        "cohere-haystack",
        "/v2/rerank",
        BODY | {"top_n": 10, "max_tokens_per_doc": 4096},
        {"model": "m", "top_n": 10, "max_document_tokens": 4096},
        results,
        BEST_FIRST,
    ),
    Recorded("llama-index TEI", "/rerank", TEXTS, {"activation": "sigmoid"}, bare, BEST_FIRST),
    Recorded(
        "haystack TEI",
        "/rerank",
        TEXTS | {"raw_scores": False},
        {"activation": "sigmoid"},
        bare,
        BEST_FIRST,
        dialect="tei",
    ),
    Recorded(
        "baseten-performance-client",
        "/rerank",
        TEXTS | {"raw_scores": True, "return_text": False, "truncate": False, "truncation_direction": "Right"},
        {"activation": "raw", "truncate": False},
        bare,
        [(1, 2.0), (0, -1.0)],
    ),
    Recorded(
        "infinity-client",
        "/rerank",
        BODY | {"return_documents": True, "raw_scores": False, "top_n": 2},
        {"model": "m", "top_n": 2, "activation": "sigmoid"},
        infinity_client,
        (STRINGS, "m", 9, 9),
    ),
    Recorded(
        "infinity-client, no model",
        "/rerank",
        BODY | {"return_documents": False, "raw_scores": True, "model": "default/not-specified", "top_n": None},
        {"activation": "raw"},
        results,
        [(1, 2.0), (0, -1.0)],
    ),
    Recorded("llama-index JinaRerank", "/rerank", BODY | {"top_n": 2}, {"model": "m", "top_n": 2}, results, BEST_FIRST),
    Recorded("jina-haystack", "/v1/rerank", BODY | {"top_n": None}, {"model": "m"}, with_usage, (BEST_FIRST, "m", 9)),
    Recorded(
        "llama-index SiliconFlow",
        "/v1/rerank",
        BODY | {"top_n": 2, "return_documents": True, "max_chunks_per_doc": 1024, "overlap_tokens": 80},
        {"model": "m", "top_n": 2},
        with_documents,
        OBJECTS,
    ),
    Recorded("llama-index Xinference", "/v1/rerank", BODY, {"model": "m"}, results, BEST_FIRST),
    Recorded(
        "xinference-client",
        "/v1/rerank",
        BODY | {"top_n": 2, "max_chunks_per_doc": None, "return_documents": True, "return_len": None, "kwargs": "{}"},
        {"model": "m", "top_n": 2},
        with_documents,
        OBJECTS,
    ),
    Recorded(
        "voyageai",
        "/v1/rerank",
        BODY | {"top_k": None, "truncation": True},
        {"model": "m"},
        lambda answer: (data(answer), answer["usage"]["total_tokens"]),
        (BEST_FIRST, 9),
        dialect="voyage",
    ),
    Recorded(
        "langchain-voyageai",
        "/v1/rerank",
        BODY | {"top_k": 1, "truncation": False},
        {"model": "m", "top_n": 1, "truncate": False},
        data,
        BEST_FIRST[:1],
    ),
    Recorded("npm voyageai, without topK", "/v1/rerank", BODY, {"model": "m"}, data, BEST_FIRST),
    Recorded(
        "langchain-nvidia-ai-endpoints",
        "/v1/ranking",
        {"model": "m", "query": {"text": QUERY}, "passages": [{"text": text} for text in DOCUMENTS]},
        {"model": "m", "activation": "raw", "truncate": False},
        rankings,
        [(1, 2.0), (0, -1.0)],
    ),
    Recorded(
        "sie-sdk",
        "/v1/score/{model:path}",
        {"query": {"text": QUERY}, "items": [{"text": "a fish", "id": "0"}, {"text": "a framework"}]},
        {"model": "BAAI/bge-reranker-v2-m3"},
        lambda answer: (
            answer["model"],
            answer["query_id"],
            [(found["item_id"], found["score"], found["rank"]) for found in answer["scores"]],
        ),
        ("BAAI/bge-reranker-v2-m3", None, [("item-1", HIGH, 0), ("0", LOW, 1)]),
        parameters={"model": "BAAI/bge-reranker-v2-m3"},
    ),
    Recorded(
        "litellm cohere/",
        "/v2/rerank",
        BODY | {"top_n": 2, "return_documents": True},
        {"model": "m", "top_n": 2},
        with_documents,
        OBJECTS,
    ),
    Recorded(
        "litellm hosted_vllm/",
        "/rerank",
        BODY | {"top_n": 2, "return_documents": True},
        {"model": "m", "top_n": 2},
        with_documents,
        OBJECTS,
        dialect="standard",
    ),
    Recorded(
        "litellm hosted_vllm/, rank_fields",
        "/rerank",
        BODY | {"documents": [{"text": text} for text in DOCUMENTS], "rank_fields": ["text"], "return_documents": True},
        {"model": "m"},
        with_documents,
        OBJECTS,
        dialect="pinecone",
    ),
    Recorded(
        "litellm infinity/",
        "/infinity/rerank",
        BODY | {"top_n": 2, "return_documents": True},
        {"model": "m", "top_n": 2, "activation": "sigmoid"},
        with_documents,
        STRINGS,
    ),
    Recorded(
        "litellm huggingface/",
        "/rerank",
        TEXTS
        | {"raw_scores": False, "truncate": False, "truncation_direction": "Right", "top_n": 2, "return_text": True},
        {"activation": "sigmoid", "truncate": False},
        lambda answer: [(found["index"], found["score"], found["text"]) for found in answer],
        STRINGS,
    ),
    Recorded(
        "litellm voyage/, no top_n",
        "/v1/rerank",
        BODY | {"return_documents": True},
        {"model": "m"},
        data_documents,
        STRINGS,
    ),
    Recorded(
        "litellm nvidia_nim/",
        "/v1/retrieval/{model:path}/reranking",
        {
            "model": "llama-3.2",
            "query": {"text": QUERY},
            "passages": [{"text": text} for text in DOCUMENTS],
            "top_k": 1,
        },
        {"model": "nvidia/llama-3_2", "top_n": 1, "activation": "raw", "truncate": False},
        rankings,
        [(1, 2.0)],
        parameters={"model": "nvidia/llama-3_2"},
    ),
    Recorded(
        "litellm fireworks_ai/",
        "/inference/v1/rerank",
        BODY | {"model": "fireworks/m", "top_n": 2, "return_documents": True},
        {"model": "m", "top_n": 2},
        data_documents,
        STRINGS,
    ),
    Recorded(
        "litellm deepinfra/",
        "/inference/{model:path}",
        {"queries": [QUERY, QUERY], "documents": DOCUMENTS},
        {"model": "a/m"},
        lambda answer: (answer["scores"], answer["input_tokens"]),
        ([LOW, HIGH], 9),
        parameters={"model": "a/m"},
    ),
    Recorded(
        "together, litellm together_ai/",
        "/v1/rerank",
        BODY | {"return_documents": True, "top_n": 2},
        {"model": "m", "top_n": 2},
        together,
        (OBJECTS, "m", USAGE),
    ),
    Recorded(
        "rerankers voyage",
        "/v1/rerank",
        BODY | {"top_k": 2, "return_documents": True},
        {"model": "m", "top_n": 2},
        data_documents,
        STRINGS,
    ),
    Recorded(
        "rerankers mixedbread",
        "/v1/rerank",
        {"model": "m", "query": QUERY, "input": DOCUMENTS, "top_n": 2, "return_input": True},
        {"model": "m"},
        lambda answer: [(found["index"], found["score"]) for found in answer["data"]],
        BEST_FIRST,
    ),
    Recorded(
        "rerankers pinecone",
        "/v1/rerank",
        BODY | {"documents": [{"text": text} for text in DOCUMENTS], "top_n": 2, "return_documents": True},
        {"model": "m", "top_n": 2},
        lambda answer: [(found["index"], found["score"]) for found in answer["data"]],
        BEST_FIRST,
    ),
    Recorded(
        "mixedbread",
        "/v1/reranking",
        {"model": "m", "query": QUERY, "input": DOCUMENTS, "top_k": 2, "return_input": True},
        {"model": "m", "top_n": 2},
        lambda answer: (
            [(found["index"], found["score"], found["input"]) for found in answer["data"]],
            answer["top_k"],
            answer["return_input"],
        ),
        (STRINGS, 2, True),
    ),
    Recorded(
        "zeroentropy",
        "/v1/models/rerank",
        BODY | {"top_n": 2},
        {"model": "m", "top_n": 2},
        lambda answer: (results(answer), answer["total_tokens"], answer["total_bytes"], answer["e2e_latency"]),
        (BEST_FIRST, 9, 29, 0.25),
    ),
    Recorded(
        "pinecone",
        "/rerank",
        BODY
        | {"documents": [{"text": text} for text in DOCUMENTS], "rank_fields": ["text"], "return_documents": True}
        | {"top_n": 2, "parameters": {"truncate": "END"}},
        {"model": "m", "top_n": 2},
        lambda answer: (
            [(found["index"], found["score"], found["document"]) for found in answer["data"]],
            answer["usage"]["rerank_units"],
        ),
        (OBJECTS, 1),
    ),
    Recorded(
        "dify OAICompatRerankModel",
        "/v1/rerank",
        BODY | {"top_n": None, "return_documents": True},
        {"model": "m"},
        with_documents,
        OBJECTS,
    ),
    Recorded("Open WebUI", "/v1/rerank", BODY | {"top_n": 2}, {"model": "m", "top_n": 2}, results, BEST_FIRST),
    Recorded(
        "LightRAG aliyun",
        "/v1/rerank",
        {"model": "m", "input": {"query": QUERY, "documents": DOCUMENTS}, "parameters": {"top_n": 1}},
        {"model": "m", "top_n": 1},
        lambda answer: results(answer["output"]),
        BEST_FIRST[:1],
    ),
    Recorded(
        "RAGFlow Xinference",
        "/v1/rerank",
        BODY | {"return_documents": "true", "return_len": "true"},
        {"model": "m"},
        lambda answer: (with_documents(answer), answer["usage"]["total_tokens"]),
        (OBJECTS, 9),
    ),
    Recorded(
        "Weaviate reranker-transformers",
        "/rerank",
        {"query": QUERY, "documents": DOCUMENTS, "property": ""},
        {},
        lambda answer: answer["scores"],
        [{"document": "a fish", "score": LOW}, {"document": "a framework", "score": HIGH}],
    ),
    Recorded(
        "npm @langchain/cohere",
        "/v1/rerank",
        BODY | {"top_n": 2, "max_chunks_per_doc": None},
        {"model": "m", "top_n": 2},
        results,
        BEST_FIRST,
    ),
    Recorded(
        "npm @ai-sdk/togetherai",
        "/v1/rerank",
        BODY | {"return_documents": False, "top_n": 2},
        {"model": "m", "top_n": 2},
        lambda answer: (results(answer), answer["usage"], ["document" in found for found in answer["results"]]),
        (BEST_FIRST, USAGE, [False, False]),
    ),
    Recorded(
        "SGLang",
        "/sglang/v1/rerank",
        BODY,
        {"model": "m"},
        lambda answer: [(found["index"], found["score"], found["document"]) for found in answer],
        STRINGS,
    ),
    Recorded(
        "vLLM score",
        "/v1/score",
        {"model": "m", "text_1": QUERY, "text_2": DOCUMENTS, "truncate_prompt_tokens": -1, "use_activation": False},
        {"model": "m", "activation": "raw"},
        lambda answer: [(found["index"], found["score"]) for found in answer["data"]],
        [(0, -1.0), (1, 2.0)],
    ),
    Recorded(
        "vLLM rerank",
        "/v1/rerank",
        BODY | {"top_n": 0, "truncate_prompt_tokens": 512, "max_tokens_per_doc": 0, "return_documents": False},
        {"model": "m", "max_pair_tokens": 512},
        lambda answer: [(found["index"], found["document"]["text"]) for found in answer["results"]],
        [(1, "a framework"), (0, "a fish")],
        dialect="vllm_rerank",
    ),
)
