"""`POST /v2/rerank`, Cohere's: cohere `ClientV2`, LangChain, llama-index, Haystack, the AI SDK, LiteLLM `cohere/`.

A field that Cohere does not have is refused with 422. Not refused are `return_documents` and `rank_fields`, which were
version 1's and which LiteLLM sends to this path unless told otherwise; it reads the documents back.
Version 1 (`/v1/rerank`) is one of those that `standard` answers. Errors have a `detail` as well, which clients of Jina
read wherever they are pointed.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict

from rankmill.serving.dialects.fields import (
    Count,
    Documents,
    Flag,
    LenientBody,
    Number,
    RankFields,
    Text,
    as_objects,
    texts_of,
)
from rankmill.serving.dialects.parts import Meta, entries, meta, status_of
from rankmill.serving.dialects.wire_format import WireFormat
from rankmill.serving.request import RerankRequest, RerankResult
from rankmill.serving.request_error import Kind, RequestError


class RelevantSpans(LenientBody):
    """Accepted; no spans are given back."""

    mode: Literal["enabled", "disabled"] | None = None
    threshold: Number | None = None
    max_spans: Count | None = None


class CohereBody(BaseModel):
    """A query and its documents."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Text = Field(description="name or alias of a configured model")
    query: Text
    documents: Documents
    top_n: Count | None = None
    max_tokens_per_doc: Count | None = None
    priority: Annotated[int, Strict()] | None = Field(None, description="accepted; requests are served in turn")
    relevant_spans: RelevantSpans | None = None
    return_documents: Flag | None = None
    rank_fields: RankFields | None = None
    max_chunks_per_doc: Count | None = None


class CohereResult(BaseModel):
    """One document's score."""

    index: int
    relevance_score: float
    document: dict[str, Any] | None = None


class CohereAnswer(BaseModel):
    """Results, best first."""

    id: str
    results: list[CohereResult]
    meta: Meta


def _read(body: CohereBody, path: Mapping[str, str]) -> RerankRequest:
    del path
    return RerankRequest(
        queries=(body.query,),
        documents=texts_of(body.documents, names=body.rank_fields),
        model=body.model,
        top_n=body.top_n,
        max_document_tokens=body.max_tokens_per_doc,
    )


def _write(body: CohereBody, request: RerankRequest, result: RerankResult) -> dict[str, Any]:
    del request
    documents = as_objects(body.documents) if body.return_documents else None
    results = entries(result, "relevance_score", documents)
    return {"id": result.request_id, "results": results, "meta": meta(result, version="2")}


_STATUS = {Kind.INVALID: 400, Kind.EMPTY: 400, Kind.TOO_LONG: 400}


def _write_error(error: RequestError) -> tuple[int, dict[str, str]]:
    return status_of(error, _STATUS), {"message": error.message, "detail": error.message}


COHERE = WireFormat(
    name="cohere",
    request_model=CohereBody,
    response_model=CohereAnswer,
    read=_read,
    write=_write,
    write_error=_write_error,
)
