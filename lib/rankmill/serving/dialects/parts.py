"""Parts of answers and errors that several dialects share."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from rankmill.serving.request import RerankResult
from rankmill.serving.request_error import Kind, RequestError

PLAIN_400: Mapping[Kind, int] = {Kind.INVALID: 400, Kind.EMPTY: 400, Kind.TOO_LONG: 400, Kind.UNKNOWN_FIELD: 400}
"""For dialects whose clients know 400 only, or would read a 422 as FastAPI's."""


class Whole(BaseModel):
    """An answer that always has all of its fields, those with defaults too; its schema says so."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True, protected_namespaces=())


class Usage(BaseModel):
    """Tokens, as OpenAI counts them."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: Literal[0]


def usage(result: RerankResult) -> dict[str, int]:
    """The JSON of `Usage`."""
    return {"prompt_tokens": result.tokens, "total_tokens": result.tokens, "completion_tokens": 0}


class ApiVersion(BaseModel):
    """Cohere's."""

    version: str


class BilledUnits(BaseModel):
    """Nothing is billed; clients read it."""

    search_units: float


class Tokens(BaseModel):
    """Cohere's count."""

    input_tokens: int
    output_tokens: int


class Meta(BaseModel):
    """Cohere's."""

    api_version: ApiVersion
    billed_units: BilledUnits
    tokens: Tokens
    warnings: list[str] | None = None


def meta(result: RerankResult, version: str) -> dict[str, Any]:
    """The JSON of `Meta`, which warns where texts were cut: Cohere's clients have no other way to know."""
    cut = int(result.truncated.sum())
    sentence = f"{cut} of {len(result.truncated)} pairs were cut to what the model reads."
    warnings = {"warnings": [sentence]} if cut else {}
    return {
        **warnings,
        "api_version": {"version": version},
        "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": result.tokens, "output_tokens": 0},
    }


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
