"""`POST /rerank`, `/v1/rerank` and `/v2/rerank`, vLLM's: told apart by fields that only vLLM has.

Documents always come back. A pair that is too long is refused unless `truncate_prompt_tokens` says otherwise.
Without any such field, a body for vLLM is answered as `standard`, which LiteLLM `hosted_vllm/` takes too.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field

from rankmill.serving.dialects import vllm
from rankmill.serving.dialects.fields import Text
from rankmill.serving.dialects.parts import Usage, ranked, usage
from rankmill.serving.dialects.vllm import NonNegative, VllmContent, VllmOptions
from rankmill.serving.dialects.wire_format import WireFormat
from rankmill.serving.request import RerankRequest, RerankResult

ONLY_VLLM = (
    "use_activation",
    "truncate_prompt_tokens",
    "truncation_side",
    "max_tokens_per_query",
    "mm_processor_kwargs",
    "chat_template_kwargs",
    "cache_salt",
    "normalize",
)
"""Fields that no other server of these paths has."""


class VllmRerankBody(VllmOptions):
    """A query and its documents."""

    query: Text | VllmContent
    documents: Annotated[list[Text | VllmContent], Field(min_length=1, fail_fast=True)]
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


def _read(body: VllmRerankBody, path: Mapping[str, str]) -> RerankRequest:
    del path
    documents = tuple(vllm.text_of(document) for document in body.documents)
    return body.request((vllm.text_of(body.query),), documents, body.top_n or None)


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
