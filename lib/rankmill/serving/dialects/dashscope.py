"""`POST /api/v1/services/rerank/text-rerank/text-rerank`, DashScope's: LightRAG's `aliyun` format, to any path.

Told apart by an `input` that holds the query, where Mixedbread has one beside it.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from rankmill.serving.dialects.fields import Count, Documents, Flag, LenientBody, Text, as_objects, texts_of
from rankmill.serving.dialects.parts import entries, status_of
from rankmill.serving.dialects.wire_format import WireFormat, called
from rankmill.serving.request import RerankRequest, RerankResult
from rankmill.serving.request_error import Kind, RequestError


class DashScopeInput(LenientBody):
    """What is ranked."""

    query: Text
    documents: Documents


class DashScopeParameters(LenientBody):
    """How it is ranked."""

    top_n: Count | None = None
    return_documents: Flag | None = None
    instruct: Text | None = None


class DashScopeBody(LenientBody):
    """A query and its documents."""

    model: Text | None = None
    input: DashScopeInput
    parameters: DashScopeParameters | None = None


class DashScopeResult(BaseModel):
    """One document's score."""

    index: int
    relevance_score: float
    document: dict[str, Any] | None = None


class DashScopeOutput(BaseModel):
    """Results, best first."""

    results: list[DashScopeResult]


class DashScopeUsage(BaseModel):
    """Tokens of all pairs."""

    total_tokens: int


class DashScopeAnswer(BaseModel):
    """What became of it."""

    output: DashScopeOutput
    usage: DashScopeUsage
    request_id: str


def _read(body: DashScopeBody, path: Mapping[str, str]) -> RerankRequest:
    del path
    parameters = body.parameters or DashScopeParameters()
    return RerankRequest(
        queries=(body.input.query,),
        documents=texts_of(body.input.documents, "input.documents"),
        model=body.model,
        top_n=parameters.top_n,
        instruction=parameters.instruct,
    )


def _write(body: DashScopeBody, request: RerankRequest, result: RerankResult) -> dict[str, Any]:
    del request
    wanted = body.parameters is not None and body.parameters.return_documents
    documents = as_objects(body.input.documents) if wanted else None
    return {
        "output": {"results": entries(result, "relevance_score", documents)},
        "usage": {"total_tokens": result.tokens},
        "request_id": result.request_id,
    }


_CODES = {
    Kind.UNAUTHORIZED: "InvalidApiKey",
    Kind.UNKNOWN_MODEL: "ModelNotFound",
    Kind.OVERLOADED: "Throttling",
    Kind.INTERNAL: "InternalError",
    Kind.UNAVAILABLE: "ServiceUnavailable",
    Kind.DEADLINE: "RequestTimeOut",
}


def _write_error(error: RequestError) -> tuple[int, dict[str, str]]:
    return status_of(error), {"code": _CODES.get(error.kind, "InvalidParameter"), "message": error.message}


DASHSCOPE = WireFormat(
    name="dashscope",
    request_model=DashScopeBody,
    response_model=DashScopeAnswer,
    read=_read,
    write=_write,
    write_error=_write_error,
    names=called(query="input.query", documents="input.documents", instruction="parameters.instruct"),
)
