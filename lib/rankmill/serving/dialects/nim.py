"""`POST /v1/ranking`, NVIDIA NIM's: LangChain, llama-index, Haystack; LiteLLM `nvidia_nim/` has a path of its own.

Scores are logits, and a pair that is too long is refused unless `truncate` is `END`. On
`/v1/retrieval/{model}/reranking` the model is the path's, because LiteLLM turns underscores in the body's into dots.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from rankmill.serving.dialects.fields import Count, LenientBody, Text
from rankmill.serving.dialects.parts import Usage, entries, status_of, usage
from rankmill.serving.dialects.wire_format import WireFormat, called
from rankmill.serving.request import RerankRequest, RerankResult
from rankmill.serving.request_error import Kind, RequestError


class NimText(LenientBody):
    """A text; images are not read."""

    text: Text


class NimBody(LenientBody):
    """A query and its passages."""

    model: Text | None = None
    query: NimText
    passages: Annotated[list[NimText], Field(min_length=1, fail_fast=True)]
    truncate: Literal["NONE", "END"] | None = Field(None, description="null is `NONE`: refuse a pair that is too long")
    top_k: Count | None = Field(None, description="LiteLLM: give back the best so many")


class NimRanking(BaseModel):
    """One passage's logit."""

    index: int
    logit: float


class NimAnswer(BaseModel):
    """Rankings, best first."""

    rankings: list[NimRanking]
    usage: Usage


def _read(body: NimBody, path: Mapping[str, str]) -> RerankRequest:
    return RerankRequest(
        queries=(body.query.text,),
        documents=tuple(passage.text for passage in body.passages),
        model=path.get("model", body.model),
        top_n=body.top_k,
        activation="raw",
        truncate=body.truncate == "END",
    )


def _write(body: NimBody, request: RerankRequest, result: RerankResult) -> dict[str, Any]:
    del body, request
    return {
        "rankings": entries(result, "logit"),
        "usage": usage(result),
    }


_TYPES = {
    Kind.UNAUTHORIZED: "authentication_error",
    Kind.UNKNOWN_MODEL: "not_found_error",
    Kind.OVERLOADED: "rate_limit_error",
    Kind.INTERNAL: "internal_server_error",
    Kind.UNAVAILABLE: "service_unavailable_error",
    Kind.DEADLINE: "timeout_error",
}


def _write_error(error: RequestError) -> tuple[int, dict[str, Any]]:
    # LangChain shows `detail` and looks for "reqId" in it, which takes a string
    kind = _TYPES.get(error.kind, "invalid_request_error")
    body = {"object": "error", "message": error.message, "detail": error.message, "type": kind}
    return status_of(error, {}), body


NIM = WireFormat(
    name="nim",
    request_model=NimBody,
    response_model=NimAnswer,
    read=_read,
    write=_write,
    write_error=_write_error,
    names=called(query="query.text", documents="passages"),
)
