"""Parts of answers and errors that several dialects share."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel

from rankmill.serving.request import RerankResult
from rankmill.serving.request_error import Kind, RequestError

PLAIN_400: Mapping[Kind, int] = {Kind.INVALID: 400, Kind.EMPTY: 400, Kind.TOO_LONG: 400, Kind.UNKNOWN_FIELD: 400}
"""For dialects whose clients know 400 only, or would read a 422 as FastAPI's."""


class Usage(BaseModel):
    """Tokens, as OpenAI counts them."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: Literal[0]


def usage(result: RerankResult) -> dict[str, int]:
    """The JSON of `Usage`."""
    return {"prompt_tokens": result.tokens, "total_tokens": result.tokens, "completion_tokens": 0}


def ranked(result: RerankResult) -> list[tuple[int, float]]:
    """Position and score of the documents to give back, best first."""
    return list(zip(result.order.tolist(), result.scores[result.order].tolist(), strict=True))


def entries(
    result: RerankResult, score: str, documents: Sequence[Any] | None = None, document: str = "document"
) -> list[dict[str, Any]]:
    """The same as JSON objects.

    Args:
        result: what to give back.
        score: the field that takes the score.
        documents: of the request, in its order, where the client wants them back.
        document: the field that takes them.
    """
    found: list[dict[str, Any]] = [{"index": index, score: value} for index, value in ranked(result)]
    if documents is not None:
        for entry in found:
            entry[document] = documents[entry["index"]]
    return found


def status_of(error: RequestError, own: Mapping[Kind, int] = PLAIN_400) -> int:
    """HTTP status: the dialect's own where it has one."""
    return own.get(error.kind, error.kind.status)
