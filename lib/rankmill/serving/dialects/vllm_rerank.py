"""`POST /rerank`, `/v1/rerank` and `/v2/rerank`, vLLM's: told apart by fields that only vLLM has, or texts in parts.

Documents always come back. A pair that is too long is refused unless `truncate_prompt_tokens` says otherwise.
Without any such sign, a body for vLLM is answered as `standard`, which LiteLLM `hosted_vllm/` takes too.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from rankmill.serving.dialects import vllm
from rankmill.serving.dialects.fields import NonNegative
from rankmill.serving.dialects.parts import Usage, ranked, usage
from rankmill.serving.dialects.vllm import ScoreInput, ScoreInputs, VllmOptions
from rankmill.serving.dialects.wire_format import WireFormat
from rankmill.serving.request import RerankRequest, RerankResult


class VllmRerankBody(VllmOptions):
    """A query and its documents."""

    query: ScoreInput
    documents: ScoreInputs
    top_n: NonNegative | None = Field(None, description="0 and null are all")


class VllmDocument(BaseModel):
    """What was scored."""

    text: str | None
    multi_modal: None


class VllmRerankResult(BaseModel):
    """One document's score."""

    index: int
    document: VllmDocument
    relevance_score: float


class VllmRerankAnswer(BaseModel):
    """Results, best first."""

    id: str
    model: str
    usage: Usage
    results: list[VllmRerankResult]


def in_parts(body: Mapping[str, Any]) -> bool:
    """Whether the query or the first document of an unchecked body is an object with parts and without a `text`."""
    documents = body.get("documents")
    first = documents[0] if isinstance(documents, list) and documents else documents
    return any(
        isinstance(value, dict) and isinstance(value.get("content"), list) and value.get("text") is None
        for value in (body.get("query"), first)
    )


def _read(body: VllmRerankBody, path: Mapping[str, str]) -> RerankRequest:
    del path
    return body.request((vllm.text_of(body.query),), vllm.texts_of(body.documents), body.top_n or None)


def _write(body: VllmRerankBody, request: RerankRequest, result: RerankResult) -> dict[str, Any]:
    del body
    return {
        "id": f"score-{result.request_id}",
        "model": result.model,
        "usage": usage(result),
        "results": [
            {
                "index": index,
                "document": {"text": request.documents[index], "multi_modal": None},
                "relevance_score": score,
            }
            for index, score in ranked(result)
        ],
    }


VLLM_RERANK = WireFormat(
    name="vllm_rerank",
    request_model=VllmRerankBody,
    response_model=VllmRerankAnswer,
    read=_read,
    write=_write,
    write_error=vllm.write_error,
)
