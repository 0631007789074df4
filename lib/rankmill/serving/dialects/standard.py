"""`POST /v1/rerank` and `/rerank` as nearly everybody speaks it, and rankmill's own fields on top.

Its clients cannot be told apart by what they send, so that the answer is the union of what they read:

| client                                               | reads                                                        |
|------------------------------------------------------|--------------------------------------------------------------|
| cohere v1 (Python, npm), LangChain.js                | `results[].index/relevance_score/document.text`, `meta`      |
| Jina: llama-index, Haystack; SiliconFlow             | `results`, `model`, `usage`; in errors `detail`, a string    |
| together (Python, npm), AI SDK                       | `results`, all of `usage`, `object`; `error.message`         |
| infinity-client, LangChain's InfinityRerank          | `results`, `model`, both counts of `usage`, `object`         |
| Xinference, Dify, RAGFlow, Open WebUI, LightRAG      | `results`, `usage.total_tokens`; in errors `detail`          |
| LiteLLM cohere, jina_ai, together_ai, hosted_vllm    | `results`, `id`, `meta`; a `document` must not be null       |
| LiteLLM voyage, npm voyageai, without `top_k`        | `data[].index/relevance_score`, `document` a string          |
| LiteLLM fireworks_ai (`/inference/v1/rerank`)        | as Voyage; sends `fireworks/` before the model's name        |
| rerankers' Pinecone                                  | `data[].index/score`                                         |

A body with one of rankmill's own fields is always read here. It may have been another server's before, so that what
others call the same is understood, and what would give other scores there is refused, not passed over.

`document` is there only if it was asked for: LiteLLM fails on null. Errors are 400, never 422: infinity-client takes
a 422 for FastAPI's.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from rankmill.serving.dialects.fields import (
    Count,
    Documents,
    Flag,
    LenientBody,
    NonNegative,
    Number,
    RankFields,
    Text,
    TextOrObject,
    as_object,
    text_of,
    texts_of,
)
from rankmill.serving.dialects.parts import Meta, Usage, meta, ranked, status_of, usage
from rankmill.serving.dialects.wire_format import WireFormat
from rankmill.serving.request import RerankRequest, RerankResult
from rankmill.serving.request_error import RequestError

_OWN_WORDS = {
    "raw_scores": "activation",
    "use_activation": "activation",
    "instruct": "instruction",
    "truncate_prompt_tokens": "max_tokens_per_doc",
}
"""What to send instead of other servers' fields."""


class StandardBody(LenientBody):
    """A query and its documents."""

    query: TextOrObject = Field(description="a text, or an object with a `text`")
    documents: Documents = Field(description="texts, or objects with a `text` or the `rank_fields`")
    model: Text | None = Field(None, description="name or alias of a configured model; null is the default one")
    top_n: Count | None = Field(None, description="give back the best so many; null is all")
    return_documents: Flag | None = Field(None, description="whether results carry their documents; null is false")
    rank_fields: RankFields | None = Field(None, description="fields of document objects to join; null is `text`")
    max_tokens_per_doc: NonNegative | None = Field(
        None, description="most tokens read of a document; 0 and null are no limit"
    )
    max_tokens_per_query: NonNegative | None = Field(
        None, description="vLLM: most tokens read of the query; 0 and null are no limit"
    )
    top_k: Count | None = Field(None, description="Voyage: `top_n`, which counts where both are given")
    truncation: Flag | None = Field(None, description="Voyage: false refuses a pair that is too long; null is true")
    return_logits: Flag | None = Field(None, description="rankmill: whether results carry the model's raw output")
    min_score: Number | None = Field(None, description="rankmill: leave out what scores less")
    activation: Literal["model", "raw", "sigmoid"] | None = Field(
        None, description="rankmill: what turns logits into scores; null is `model`"
    )
    long_documents: Literal["truncate", "chunk"] | None = Field(
        None,
        description="rankmill: cut what is too long, or read it in chunks and keep the best; null is as configured",
    )
    instruction: Text | None = Field(None, description="rankmill, vLLM: for models that take one")
    raw_scores: None = Field(None, description="refused; send `activation`")
    use_activation: None = Field(None, description="refused; send `activation`")
    instruct: None = Field(None, description="refused; send `instruction`")
    truncate_prompt_tokens: None = Field(None, description="refused; send `max_tokens_per_doc`")

    @field_validator(*_OWN_WORDS, mode="before")
    @classmethod
    def _not_ours(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None:
            raise ValueError(f"means nothing here; send {_OWN_WORDS[info.field_name or '']} instead")
        return value


class StandardResult(BaseModel):
    """One document's score."""

    index: int = Field(description="position in the request, from 0")
    relevance_score: float
    document: dict[str, Any] | None = None
    truncated: bool = Field(description="whether the query or this document was cut before scoring")
    logit: float | None = None
    best_chunk: tuple[int, int] | None = Field(
        None, description="first character and end of the chunk that scored best"
    )


class DataResult(BaseModel):
    """The same for clients that read `data`."""

    index: int
    relevance_score: float
    score: float
    document: str | None = None


class StandardAnswer(BaseModel):
    """Results, best first."""

    id: str
    object: Literal["rerank"]
    model: str
    model_revision: str
    created: int
    results: list[StandardResult]
    data: list[DataResult]
    meta: Meta
    usage: Usage


def _read(body: StandardBody, path: Mapping[str, str]) -> RerankRequest:
    del path
    return RerankRequest(
        queries=(text_of(body.query, "query"),),
        documents=texts_of(body.documents, names=body.rank_fields),
        model=body.model,
        top_n=body.top_n or body.top_k,
        min_score=body.min_score,
        activation=body.activation or "model",
        long_documents=body.long_documents,
        truncate=body.truncation is not False,
        max_query_tokens=body.max_tokens_per_query or None,
        max_document_tokens=body.max_tokens_per_doc or None,
        instruction=body.instruction,
    )


def _read_fireworks(body: StandardBody, path: Mapping[str, str]) -> RerankRequest:
    request = _read(body, path)
    return replace(request, model=request.model and request.model.removeprefix("fireworks/"))


def _result(body: StandardBody, result: RerankResult, index: int, score: float) -> dict[str, Any]:
    found: dict[str, Any] = {"index": index, "relevance_score": score, "truncated": bool(result.truncated[index])}
    if body.return_documents:
        found["document"] = as_object(body.documents[index])
    if body.return_logits:
        found["logit"] = float(result.logits[index])
    if result.best is not None and result.best[index, 0] >= 0:
        found["best_chunk"] = result.best[index].tolist()
    return found


def _datum(body: StandardBody, request: RerankRequest, index: int, score: float) -> dict[str, Any]:
    found: dict[str, Any] = {"index": index, "relevance_score": score, "score": score}
    if body.return_documents:
        found["document"] = request.documents[index]
    return found


def _write(body: StandardBody, request: RerankRequest, result: RerankResult) -> dict[str, Any]:
    best_first = ranked(result)
    return {
        "id": result.request_id,
        "object": "rerank",
        "model": result.model,
        "model_revision": result.revision,
        "created": result.created,
        "results": [_result(body, result, index, score) for index, score in best_first],
        "data": [_datum(body, request, index, score) for index, score in best_first],
        "meta": meta(result, version="1"),
        "usage": usage(result),
    }


def write_error(error: RequestError) -> tuple[int, dict[str, Any]]:
    """Cohere reads `message`, Jina and Xinference `detail`, Together and OpenAI-like clients `error.message`."""
    status = status_of(error)
    inner = {"message": error.message, "type": error.kind.name.lower(), "param": error.field, "code": status}
    return status, {"message": error.message, "detail": error.message, "error": inner}


STANDARD = WireFormat(
    name="standard",
    request_model=StandardBody,
    response_model=StandardAnswer,
    read=_read,
    write=_write,
    write_error=write_error,
)
FIREWORKS = replace(STANDARD, name="fireworks", read=_read_fireworks)
