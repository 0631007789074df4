"""`POST /rerank` with `texts`, text-embeddings-inference's: Haystack, llama-index, Baseten, LiteLLM `huggingface/`.

The answer is a bare list. The score is the sigmoid of the logit whatever the model's files say, or the logit itself
with `raw_scores`. Equal scores come in the order of the texts, where TEI reverses them. Of TEI's headers two are left
out: `x-compute-type` is not known here, and `x-queue-time` is part of `x-inference-time`.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field, RootModel

from rankmill.serving.dialects.fields import Documents, Flag, LenientBody, Text, texts_of
from rankmill.serving.dialects.parts import entries, status_of
from rankmill.serving.dialects.wire_format import WireFormat, called
from rankmill.serving.request import RerankRequest, RerankResult
from rankmill.serving.request_error import Kind, RequestError


class TeiBody(LenientBody):
    """A query and its texts; fields that LiteLLM adds, such as `top_n`, mean nothing here as they do to TEI."""

    query: Text
    texts: Documents = Field(description="texts; LiteLLM may send objects with a `text`")
    truncate: Flag | None = Field(None, description="false refuses a pair that is too long; null is true")
    truncation_direction: Literal["Right", "Left", "right", "left"] | None = Field(
        None, description="with `Left`, a pair that is too long is refused: only ends are cut"
    )
    raw_scores: Flag | None = None
    return_text: Flag | None = None


class TeiRank(BaseModel):
    """One text's score."""

    index: int
    score: float
    text: str | None = None


class TeiAnswer(RootModel[list[TeiRank]]):
    """Best first."""


def _read(body: TeiBody, path: Mapping[str, str]) -> RerankRequest:
    del path
    return RerankRequest(
        queries=(body.query,),
        documents=texts_of(body.texts, "texts"),
        activation="raw" if body.raw_scores else "sigmoid",
        truncate=body.truncate is not False and body.truncation_direction not in {"Left", "left"},
    )


def _write(body: TeiBody, request: RerankRequest, result: RerankResult) -> list[dict[str, Any]]:
    return entries(result, "score", request.documents if body.return_text else None, "text")


def _write_headers(request: RerankRequest, result: RerankResult, seconds: Mapping[str, float]) -> dict[str, str]:
    queries, documents = request.pairs
    total = sum(seconds.values())
    times = {
        "x-compute-time": total,
        "x-total-time": total,
        "x-tokenization-time": seconds.get("prepare", 0.0),
        "x-inference-time": seconds.get("score", 0.0),
    }
    return {
        "x-compute-characters": str(sum(map(len, queries)) + sum(map(len, documents))),
        "x-compute-tokens": str(result.tokens),
        **{name: str(int(1000 * took)) for name, took in times.items()},
    }


# 424 is for what would fail again: TEI's clients never retry it
_STATUS = {Kind.EMPTY: 400, Kind.INTERNAL: 424}
_TYPES = {
    Kind.EMPTY: "Empty",
    Kind.OVERLOADED: "Overloaded",
    Kind.UNAVAILABLE: "Unhealthy",
    Kind.INTERNAL: "Backend",
    Kind.DEADLINE: "Backend",
}


def _write_error(error: RequestError) -> tuple[int, dict[str, str]]:
    return status_of(error, _STATUS), {"error": error.message, "error_type": _TYPES.get(error.kind, "Validation")}


TEI = WireFormat(
    name="tei",
    request_model=TeiBody,
    response_model=TeiAnswer,
    read=_read,
    write=_write,
    write_error=_write_error,
    write_headers=_write_headers,
    names=called(documents="texts"),
)
