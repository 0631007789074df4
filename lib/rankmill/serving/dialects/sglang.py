"""`POST /sglang/v1/rerank`, SGLang's, which answers with a bare list; on the shared paths told apart by `instruct`."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field, RootModel

from rankmill.serving.dialects.fields import Count, Documents, Flag, LenientBody, Text, texts_of
from rankmill.serving.dialects.parts import entries, status_of
from rankmill.serving.dialects.wire_format import WireFormat, called
from rankmill.serving.request import RerankRequest, RerankResult
from rankmill.serving.request_error import RequestError


class SglangBody(LenientBody):
    """A query and its documents."""

    query: Text
    documents: Documents
    model: Text | None = None
    instruct: Text | None = None
    top_n: Count | None = None
    return_documents: Flag | None = Field(None, description="null is true")


class SglangResult(BaseModel):
    """One document's score."""

    score: float
    index: int
    document: str | None = None


class SglangAnswer(RootModel[list[SglangResult]]):
    """Best first."""


def _read(body: SglangBody, path: Mapping[str, str]) -> RerankRequest:
    del path
    return RerankRequest(
        queries=(body.query,),
        documents=texts_of(body.documents),
        model=body.model,
        top_n=body.top_n,
        instruction=body.instruct,
    )


def _write(body: SglangBody, request: RerankRequest, result: RerankResult) -> list[dict[str, Any]]:
    return entries(result, "score", None if body.return_documents is False else request.documents)


def _write_error(error: RequestError) -> tuple[int, dict[str, Any]]:
    status = status_of(error)
    return status, {"object": "error", "message": error.message, "type": "BadRequestError", "code": status}


SGLANG = WireFormat(
    name="sglang",
    request_model=SglangBody,
    response_model=SglangAnswer,
    read=_read,
    write=_write,
    write_error=_write_error,
    names=called(instruction="instruct"),
)
