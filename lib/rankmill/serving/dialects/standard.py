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

`document` is there only if it was asked for: LiteLLM fails on null. Errors are 400, never 422: infinity-client takes
a 422 for FastAPI's.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, Field

from rankmill.serving.dialects.fields import (
    Count,
    Documents,
    Flag,
    LenientBody,
    Number,
    RankFields,
    Text,
    TextOrObject,
    as_object,
    text_of,
    texts_of,
)
from rankmill.serving.dialects.parts import Usage, ranked, status_of, usage
from rankmill.serving.dialects.wire_format import WireFormat
from rankmill.serving.request import RerankRequest, RerankResult
from rankmill.serving.request_error import RequestError


class StandardBody(LenientBody):
    """A query and its documents."""

    query: TextOrObject = Field(description="a text, or an object with a `text`")
    documents: Documents = Field(description="texts, or objects with a `text` or the `rank_fields`")
    model: Text | None = Field(None, description="name or alias of a configured model; null is the default one")
    top_n: Count | None = Field(None, description="give back the best so many; null is all")
    return_documents: Flag | None = Field(None, description="whether results carry their documents; null is false")
    rank_fields: RankFields | None = Field(None, description="fields of document objects to join; null is `text`")
    max_tokens_per_doc: Count | None = Field(None, description="most tokens read of a document")
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


class ApiVersion(BaseModel):
    """Cohere's."""

    version: str


class BilledUnits(BaseModel):
    """Nothing is billed; clients read it."""

    search_units: float


class Tokens(BaseModel):
    """Cohere's count."""

    input_tokens: int
    output_tokens: int


class Meta(BaseModel):
    """Cohere's."""

    api_version: ApiVersion
    billed_units: BilledUnits
    tokens: Tokens
    warnings: list[str] | None = None


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


def meta(result: RerankResult, version: str) -> dict[str, Any]:
    """The JSON of `Meta`, which warns where texts were cut: Cohere's clients have no other way to know."""
    cut = int(result.truncated.sum())
    sentence = f"{cut} of {len(result.truncated)} pairs were cut to what the model reads."
    warnings = {"warnings": [sentence]} if cut else {}
    return {
        **warnings,
        "api_version": {"version": version},
        "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": result.tokens, "output_tokens": 0},
    }


def _read(body: StandardBody, path: Mapping[str, str]) -> RerankRequest:
    del path
    return RerankRequest(
        queries=(text_of(body.query, "query"),),
        documents=texts_of(body.documents, names=body.rank_fields),
        model=body.model,
        top_n=body.top_n,
        min_score=body.min_score,
        activation=body.activation or "model",
        long_documents=body.long_documents,
        max_document_tokens=body.max_tokens_per_doc,
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
