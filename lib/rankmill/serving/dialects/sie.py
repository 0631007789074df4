"""`POST /v1/score/{model}`, SIE's: sie-sdk and what is built on it. The model's name may have slashes.

MessagePack or JSON in; MessagePack out unless `Accept` says JSON, and the SDK takes nothing else on 200. Errors are
JSON. The SDK retries a 429, and a 503 whose code it knows, for up to 15 minutes; any other error is final.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field

from rankmill.serving.dialects.fields import Count, LenientBody, Text
from rankmill.serving.dialects.parts import Usage, ranked, status_of, usage
from rankmill.serving.dialects.wire_format import WireFormat, called
from rankmill.serving.request import RerankRequest, RerankResult
from rankmill.serving.request_error import Kind, RequestError


class SieItem(LenientBody):
    """A text and perhaps its name; images, sound and video are not read."""

    text: Text
    id: Text | None = None


class SieOptions(LenientBody):
    """How it is scored."""

    max_seq_length: Count | None = Field(None, description="most tokens read of a pair")


class SieBody(LenientBody):
    """A query and its items."""

    query: SieItem
    items: Annotated[list[SieItem], Field(min_length=1, fail_fast=True)]
    instruction: Text | None = None
    options: SieOptions | None = None


class SieScore(BaseModel):
    """One item's score."""

    item_id: str
    score: float
    rank: int = Field(description="from 0")


class SieAnswer(BaseModel):
    """Scores, best first."""

    model: str
    query_id: str | None
    scores: list[SieScore]
    usage: Usage


def _read(body: SieBody, path: Mapping[str, str]) -> RerankRequest:
    return RerankRequest(
        queries=(body.query.text,),
        documents=tuple(item.text for item in body.items),
        model=path.get("model"),
        max_pair_tokens=body.options.max_seq_length if body.options else None,
        instruction=body.instruction,
    )


def _item_id(body: SieBody, index: int) -> str:
    given = body.items[index].id
    return f"item-{index}" if given is None else given


def _write(body: SieBody, request: RerankRequest, result: RerankResult) -> dict[str, Any]:
    del request
    return {
        "model": result.model,
        "query_id": body.query.id,
        "scores": [
            {"item_id": _item_id(body, index), "score": score, "rank": rank}
            for rank, (index, score) in enumerate(ranked(result))
        ],
        "usage": usage(result),
    }


_CODES = {
    Kind.UNAUTHORIZED: "UNAUTHORIZED",
    Kind.UNKNOWN_MODEL: "MODEL_NOT_FOUND",
    Kind.TOO_LONG: "INPUT_TOO_LONG",
    Kind.OVERLOADED: "RATE_LIMIT",
    Kind.INTERNAL: "INTERNAL_ERROR",
    Kind.UNAVAILABLE: "MODEL_LOADING",
    Kind.DEADLINE: "TIMEOUT",
}


def _write_error(error: RequestError) -> tuple[int, dict[str, Any]]:
    inner = {"code": _CODES.get(error.kind, "INVALID_INPUT"), "message": error.message}
    return status_of(error), {"detail": inner, "error": inner}


SIE = WireFormat(
    name="sie",
    request_model=SieBody,
    response_model=SieAnswer,
    read=_read,
    write=_write,
    write_error=_write_error,
    names=called(query="query.text", documents="items"),
    msgpack=True,
)
