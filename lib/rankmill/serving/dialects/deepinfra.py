"""`POST /v1/inference/{model}` and `/inference/{model}`, DeepInfra's: LiteLLM `deepinfra/`, which repeats the query."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from rankmill.serving.dialects.fields import LenientBody, Text, Texts
from rankmill.serving.dialects.parts import status_of
from rankmill.serving.dialects.wire_format import WireFormat, called
from rankmill.serving.request import RerankRequest, RerankResult
from rankmill.serving.request_error import Kind, RequestError


class DeepInfraBody(LenientBody):
    """Pairs."""

    queries: Texts = Field(description="one for all documents, or one for each")
    documents: Texts
    instruction: Text | None = None


class DeepInfraStatus(BaseModel):
    """Nothing is billed; LiteLLM reads it."""

    status: Literal["succeeded"]
    runtime_ms: int
    cost: float
    tokens_input: int
    tokens_generated: int


class DeepInfraAnswer(BaseModel):
    """In the order of the documents."""

    scores: list[float]
    input_tokens: int
    request_id: str
    inference_status: DeepInfraStatus


def _read(body: DeepInfraBody, path: Mapping[str, str]) -> RerankRequest:
    queries = tuple(body.queries)
    if len(queries) not in {1, len(body.documents)}:
        message = (
            f"queries has {len(queries)} texts and documents has {len(body.documents)}; send one query, or as many."
        )
        raise RequestError(Kind.INVALID, message, field="queries")
    if len(set(queries)) == 1:
        queries = queries[:1]
    return RerankRequest(
        queries=queries, documents=tuple(body.documents), model=path.get("model"), instruction=body.instruction
    )


def _write(body: DeepInfraBody, request: RerankRequest, result: RerankResult) -> dict[str, Any]:
    del body, request
    return {
        "scores": result.scores.tolist(),
        "input_tokens": result.tokens,
        "request_id": result.request_id,
        "inference_status": {
            "status": "succeeded",
            "runtime_ms": round(1000 * result.seconds),
            "cost": 0.0,
            "tokens_input": result.tokens,
            "tokens_generated": 0,
        },
    }


def _write_error(error: RequestError) -> tuple[int, dict[str, Any]]:
    return status_of(error), {"detail": {"error": error.message}}


DEEPINFRA = WireFormat(
    name="deepinfra",
    request_model=DeepInfraBody,
    response_model=DeepInfraAnswer,
    read=_read,
    write=_write,
    write_error=_write_error,
    names=called(query="queries"),
)
