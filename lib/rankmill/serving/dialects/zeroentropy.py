"""`POST /v1/models/rerank`, ZeroEntropy's: zeroentropy for Python."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel

from rankmill.serving.dialects.fields import Count, LenientBody, Text, Texts
from rankmill.serving.dialects.parts import entries, status_of
from rankmill.serving.dialects.wire_format import WireFormat
from rankmill.serving.request import RerankRequest, RerankResult
from rankmill.serving.request_error import RequestError


class ZeroEntropyBody(LenientBody):
    """A query and its documents."""

    query: Text
    documents: Texts
    model: Text | None = None
    top_n: Count | None = None


class ZeroEntropyResult(BaseModel):
    """One document's score."""

    index: int
    relevance_score: float


class ZeroEntropyAnswer(BaseModel):
    """Results, best first."""

    results: list[ZeroEntropyResult]
    total_tokens: int
    total_bytes: int
    actual_latency_mode: Literal["fast"]
    e2e_latency: float
    inference_latency: float


def _read(body: ZeroEntropyBody, path: Mapping[str, str]) -> RerankRequest:
    del path
    return RerankRequest(queries=(body.query,), documents=tuple(body.documents), model=body.model, top_n=body.top_n)


def _write(body: ZeroEntropyBody, request: RerankRequest, result: RerankResult) -> dict[str, Any]:
    del request
    return {
        "results": entries(result, "relevance_score"),
        "total_tokens": result.tokens,
        "total_bytes": sum(len(text.encode()) for text in (body.query, *body.documents)),
        "actual_latency_mode": "fast",
        "e2e_latency": result.seconds,
        "inference_latency": result.seconds,
    }


def _write_error(error: RequestError) -> tuple[int, dict[str, str]]:
    return status_of(error), {"detail": error.message}


ZEROENTROPY = WireFormat(
    name="zeroentropy",
    request_model=ZeroEntropyBody,
    response_model=ZeroEntropyAnswer,
    read=_read,
    write=_write,
    write_error=_write_error,
)
