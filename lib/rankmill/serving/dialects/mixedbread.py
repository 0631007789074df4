"""`POST /v1/reranking`, Mixedbread's: mixedbread for Python; rerankers posts the same to any path it is given."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field, JsonValue

from rankmill.serving.dialects.fields import Count, Documents, Flag, LenientBody, RankFields, Text, texts_of
from rankmill.serving.dialects.parts import Usage, entries, status_of, usage
from rankmill.serving.dialects.wire_format import WireFormat, called
from rankmill.serving.request import RerankRequest, RerankResult
from rankmill.serving.request_error import RequestError


class MixedbreadBody(LenientBody):
    """A query and its input."""

    query: Text
    input: Documents = Field(description="texts, or objects with a `text` or the `rank_fields`")
    model: Text | None = None
    top_k: Count | None = None
    rank_fields: RankFields | None = None
    return_input: Flag | None = None


class MixedbreadResult(BaseModel):
    """One input's score."""

    index: int
    score: float
    input: JsonValue | None = None
    object: Literal["rank_result"]


class MixedbreadAnswer(BaseModel):
    """Results, best first."""

    usage: Usage
    model: str
    data: list[MixedbreadResult]
    object: Literal["list"]
    top_k: int
    return_input: bool


def _read(body: MixedbreadBody, path: Mapping[str, str]) -> RerankRequest:
    del path
    return RerankRequest(
        queries=(body.query,),
        documents=texts_of(body.input, "input", body.rank_fields),
        model=body.model,
        top_n=body.top_k,
    )


def _write(body: MixedbreadBody, request: RerankRequest, result: RerankResult) -> dict[str, Any]:
    found = entries(result, "score", body.input if body.return_input else None, "input")
    return {
        "usage": usage(result),
        "model": result.model,
        "data": [entry | {"object": "rank_result"} for entry in found],
        "object": "list",
        "top_k": body.top_k or len(request.documents),
        "return_input": bool(body.return_input),
    }


def _write_error(error: RequestError) -> tuple[int, dict[str, str]]:
    return status_of(error), {"message": error.message, "detail": error.message}


MIXEDBREAD = WireFormat(
    name="mixedbread",
    request_model=MixedbreadBody,
    response_model=MixedbreadAnswer,
    read=_read,
    write=_write,
    write_error=_write_error,
    names=called(documents="input"),
)
