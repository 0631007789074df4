"""`POST /rerank`, Pinecone's: pinecone for Python.

Told apart by `rank_fields` or `parameters`; the client always sends the first. LiteLLM `hosted_vllm/` sends it where it
is given some, and reads `results`, so that they are there beside `data`.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from rankmill.serving.dialects.fields import Count, Documents, Flag, LenientBody, RankFields, Text, as_objects, texts_of
from rankmill.serving.dialects.parts import entries, status_of
from rankmill.serving.dialects.wire_format import WireFormat
from rankmill.serving.request import RerankRequest, RerankResult
from rankmill.serving.request_error import Kind, RequestError


class PineconeParameters(LenientBody):
    """Of the model."""

    truncate: Literal["END", "NONE"] | None = Field(None, description="`NONE` refuses a pair that is too long")


class PineconeBody(LenientBody):
    """A query and its documents."""

    query: Text
    documents: Documents
    model: Text | None = None
    rank_fields: RankFields | None = None
    return_documents: Flag | None = Field(None, description="null is true")
    top_n: Count | None = None
    parameters: PineconeParameters | None = None


class PineconeResult(BaseModel):
    """One document's score."""

    index: int
    score: float
    document: dict[str, Any] | None = None


class PineconeRelevance(BaseModel):
    """The same for LiteLLM."""

    index: int
    relevance_score: float
    document: dict[str, Any] | None = None


class PineconeUsage(BaseModel):
    """Nothing is billed; the client reads it."""

    rerank_units: int


class PineconeAnswer(BaseModel):
    """Results, best first."""

    model: str
    data: list[PineconeResult]
    results: list[PineconeRelevance]
    usage: PineconeUsage


def _read(body: PineconeBody, path: Mapping[str, str]) -> RerankRequest:
    del path
    return RerankRequest(
        queries=(body.query,),
        documents=texts_of(body.documents, names=body.rank_fields),
        model=body.model,
        top_n=body.top_n,
        truncate=body.parameters is None or body.parameters.truncate != "NONE",
    )


def _write(body: PineconeBody, request: RerankRequest, result: RerankResult) -> dict[str, Any]:
    del request
    documents = None if body.return_documents is False else as_objects(body.documents)
    return {
        "model": result.model,
        "data": entries(result, "score", documents),
        "results": entries(result, "relevance_score", documents),
        "usage": {"rerank_units": 1},
    }


_CODES = {
    Kind.UNAUTHORIZED: "UNAUTHENTICATED",
    Kind.UNKNOWN_MODEL: "NOT_FOUND",
    Kind.OVERLOADED: "RESOURCE_EXHAUSTED",
    Kind.INTERNAL: "INTERNAL",
    Kind.UNAVAILABLE: "UNAVAILABLE",
    Kind.DEADLINE: "DEADLINE_EXCEEDED",
}


def _write_error(error: RequestError) -> tuple[int, dict[str, Any]]:
    status = status_of(error)
    code = _CODES.get(error.kind, "INVALID_ARGUMENT")
    return status, {"error": {"code": code, "message": error.message}, "status": status}


PINECONE = WireFormat(
    name="pinecone",
    request_model=PineconeBody,
    response_model=PineconeAnswer,
    read=_read,
    write=_write,
    write_error=_write_error,
)
