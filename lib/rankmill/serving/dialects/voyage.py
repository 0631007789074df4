"""`POST /v1/rerank`, Voyage's: voyageai (Python, npm), LangChain, LiteLLM `voyage/`, rerankers.

Told apart by `top_k` or `truncation`; voyageai for Python always sends both.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from rankmill.serving.dialects.fields import Count, Documents, Flag, LenientBody, Text, texts_of
from rankmill.serving.dialects.parts import entries, status_of
from rankmill.serving.dialects.wire_format import WireFormat
from rankmill.serving.request import RerankRequest, RerankResult
from rankmill.serving.request_error import RequestError


class VoyageBody(LenientBody):
    """A query and its documents."""

    query: Text
    documents: Documents = Field(description="texts; LiteLLM may send objects with a `text`")
    model: Text | None = None
    top_k: Count | None = None
    truncation: Flag | None = Field(None, description="false refuses a pair that is too long; null is true")
    return_documents: Flag | None = None


class VoyageResult(BaseModel):
    """One document's score."""

    index: int
    relevance_score: float
    document: str | None = None


class VoyageUsage(BaseModel):
    """Tokens of all pairs."""

    total_tokens: int


class VoyageAnswer(BaseModel):
    """Results, best first."""

    object: Literal["list"]
    data: list[VoyageResult]
    model: str
    usage: VoyageUsage


def _read(body: VoyageBody, path: Mapping[str, str]) -> RerankRequest:
    del path
    return RerankRequest(
        queries=(body.query,),
        documents=texts_of(body.documents),
        model=body.model,
        top_n=body.top_k,
        truncate=body.truncation is not False,
    )


def _write(body: VoyageBody, request: RerankRequest, result: RerankResult) -> dict[str, Any]:
    data = entries(result, "relevance_score", request.documents if body.return_documents else None)
    return {"object": "list", "data": data, "model": result.model, "usage": {"total_tokens": result.tokens}}


def _write_error(error: RequestError) -> tuple[int, dict[str, str]]:
    return status_of(error), {"detail": error.message}


VOYAGE = WireFormat(
    name="voyage",
    request_model=VoyageBody,
    response_model=VoyageAnswer,
    read=_read,
    write=_write,
    write_error=_write_error,
)
