"""`POST /rerank` with `property`: Weaviate's module reranker-transformers, which sends documents 32 at a time.

It takes scores by position, so that they come in the order of the documents, all of them.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from rankmill.serving.dialects.fields import LenientBody, Text, Texts
from rankmill.serving.dialects.parts import status_of
from rankmill.serving.dialects.wire_format import WireFormat
from rankmill.serving.request import RerankRequest, RerankResult
from rankmill.serving.request_error import RequestError


class WeaviateBody(LenientBody):
    """A query and its documents."""

    query: Text
    documents: Texts
    property: Text | None = None


class WeaviateScore(BaseModel):
    """One document's score."""

    document: str
    score: float


class WeaviateAnswer(BaseModel):
    """In the order of the documents."""

    query: str
    scores: list[WeaviateScore]


def _read(body: WeaviateBody, path: Mapping[str, str]) -> RerankRequest:
    del path
    return RerankRequest(queries=(body.query,), documents=tuple(body.documents))


def _write(body: WeaviateBody, request: RerankRequest, result: RerankResult) -> dict[str, Any]:
    del request
    scored = zip(body.documents, result.scores.tolist(), strict=True)
    return {"query": body.query, "scores": [{"document": document, "score": score} for document, score in scored]}


def _write_error(error: RequestError) -> tuple[int, dict[str, str]]:
    return status_of(error), {"error": error.message}


WEAVIATE = WireFormat(
    name="weaviate",
    request_model=WeaviateBody,
    response_model=WeaviateAnswer,
    read=_read,
    write=_write,
    write_error=_write_error,
)
