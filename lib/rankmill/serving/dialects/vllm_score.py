"""`POST /score` and `/v1/score`, vLLM's: pairs of texts, scores in their order.

Two lists of texts, or a text and a list, under one of four pairs of names.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from rankmill.serving.dialects import vllm
from rankmill.serving.dialects.parts import Usage, usage
from rankmill.serving.dialects.vllm import ScoreInputs, VllmOptions
from rankmill.serving.dialects.wire_format import WireFormat
from rankmill.serving.request import RerankRequest, RerankResult
from rankmill.serving.request_error import Kind, RequestError

SIDES = (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2"))


class VllmScoreBody(VllmOptions):
    """One of `text_1` and `text_2`, `queries` and `documents`, `queries` and `items`, `data_1` and `data_2`."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {
                    "required": list(names),
                    "properties": {name: {"type": ["string", "object", "array"]} for name in names},
                }
                for names in SIDES
            ]
        }
    )

    text_1: ScoreInputs | None = None
    text_2: ScoreInputs | None = None
    queries: ScoreInputs | None = None
    documents: ScoreInputs | None = None
    items: ScoreInputs | None = None
    data_1: ScoreInputs | None = None
    data_2: ScoreInputs | None = None


class VllmScore(BaseModel):
    """One pair's score."""

    index: int
    object: Literal["score"]
    score: float


class VllmScoreAnswer(BaseModel):
    """In the order of the pairs."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[VllmScore]
    usage: Usage


def _sides(fields: Iterable[tuple[str, Any]]) -> tuple[str, str] | None:
    """The first pair of names that are both there."""
    given = {name for name, value in fields if value is not None}
    return next((names for names in SIDES if given.issuperset(names)), None)


def _names(body: Mapping[str, Any]) -> Mapping[str, str]:
    return dict(zip(("query", "documents"), _sides(body.items()) or (), strict=False))


def _read(body: VllmScoreBody, path: Mapping[str, str]) -> RerankRequest:
    del path
    sides = _sides(body)
    if sides is None:
        raise RequestError(
            Kind.INVALID, "Send text_1 and text_2, or queries and documents (or items), or data_1 and data_2."
        )
    left, right = sides
    queries, documents = (vllm.texts_of(getattr(body, name)) for name in sides)
    if len(queries) not in {1, len(documents)}:
        sizes = f"{left} has {len(queries)} texts and {right} has {len(documents)}"
        raise RequestError(Kind.INVALID, f"{sizes}; send one for all, or as many of each.", field=left)
    return body.request(queries, documents)


def _write(body: VllmScoreBody, request: RerankRequest, result: RerankResult) -> dict[str, Any]:
    del body, request
    return {
        "id": f"score-{result.request_id}",
        "object": "list",
        "created": result.created,
        "model": result.model,
        "data": [
            {"index": index, "object": "score", "score": score} for index, score in enumerate(result.scores.tolist())
        ],
        "usage": usage(result),
    }


VLLM_SCORE = WireFormat(
    name="vllm_score",
    request_model=VllmScoreBody,
    response_model=VllmScoreAnswer,
    read=_read,
    write=_write,
    write_error=vllm.write_error,
    names=_names,
)
