"""`POST /rerank`, Infinity's: infinity-client, LangChain's InfinityRerank, LiteLLM `infinity/`.

Told apart by `raw_scores`, which infinity-client always sends. LiteLLM sends no sign and fails on a `document` that is
an object, which others need: it gets `/infinity/rerank`. A 422 must hold FastAPI's list in `detail`.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel

from rankmill.serving.dialects.fields import Count, Documents, Flag, LenientBody, Text, texts_of
from rankmill.serving.dialects.parts import Usage, entries, usage
from rankmill.serving.dialects.wire_format import WireFormat
from rankmill.serving.request import RerankRequest, RerankResult
from rankmill.serving.request_error import Kind, RequestError


class InfinityBody(LenientBody):
    """A query and its documents."""

    query: Text
    documents: Documents
    model: Text | None = None
    top_n: Count | None = None
    return_documents: Flag | None = None
    raw_scores: Flag | None = None


class InfinityResult(BaseModel):
    """One document's score."""

    relevance_score: float
    index: int
    document: str | None = None


class InfinityAnswer(BaseModel):
    """Results, best first."""

    object: Literal["rerank"]
    results: list[InfinityResult]
    model: str
    usage: Usage
    id: str
    created: int


_NO_MODEL = "default/not-specified"
"""What infinity-client sends when it is given no model."""


def _read(body: InfinityBody, path: Mapping[str, str]) -> RerankRequest:
    del path
    return RerankRequest(
        queries=(body.query,),
        documents=texts_of(body.documents),
        model=None if body.model == _NO_MODEL else body.model,
        top_n=body.top_n,
        activation="raw" if body.raw_scores else "sigmoid",  # whatever the model's files say
    )


def _write(body: InfinityBody, request: RerankRequest, result: RerankResult) -> dict[str, Any]:
    return {
        "object": "rerank",
        "results": entries(result, "relevance_score", request.documents if body.return_documents else None),
        "model": result.model,
        "usage": usage(result),
        "id": f"infinity-{result.request_id}",
        "created": result.created,
    }


def _write_error(error: RequestError) -> tuple[int, dict[str, Any]]:
    if error.kind is Kind.UNAUTHORIZED:
        return 401, {"detail": "Unauthorized"}
    status = error.kind.status
    if status == 422:
        return status, {"detail": [{"loc": ["body", error.field or ""], "msg": error.message, "type": "value_error"}]}
    return status, {"error": {"message": error.message, "type": None, "param": None, "code": status}}


INFINITY = WireFormat(
    name="infinity",
    request_model=InfinityBody,
    response_model=InfinityAnswer,
    read=_read,
    write=_write,
    write_error=_write_error,
)
