"""What is sent to `POST /v1/pipelines/execute`, and what comes back."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from rankmill.retrieval.filters import MAX_CHARACTERS
from rankmill.retrieval.retriever import Mode
from rankmill.serving.dialects.fields import Count, Text
from rankmill.serving.search import RETURNED, Scalar

MOST_STAGES = 16
MOST_VALUES = 10_000
"""Of a filter's list."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Stage(_Strict):
    """One step."""

    stage_id: Literal["search", "attribute_filter", "rerank", "limit"]
    stage_type: Text | None = Field(None, description="of the documentation, such as sort; not read")
    stage_name: Text | None = Field(None, description="for people; not read")
    parameters: dict[Text, JsonValue] | None = Field(None, description="a null among them is as if it were not there")


class PipelineBody(_Strict):
    """What is sent."""

    inputs: dict[Text, JsonValue] | None = Field(None, description="what {{INPUT.x}} stands for")
    stages: Annotated[list[Stage], Field(min_length=1, max_length=MOST_STAGES, fail_fast=True)]


class SearchParameters(_Strict):
    """Of `search`."""

    query: Text
    top_k: Count | None = None
    mode: Mode | None = None
    filter: Text | None = Field(None, max_length=MAX_CHARACTERS)


class FilterParameters(_Strict):
    """Of `attribute_filter`; null passes `ne` and nothing else."""

    field: Text
    operator: Literal["eq", "ne", "lt", "lte", "gt", "gte", "in"] = "eq"
    value: str | int | float | bool | Annotated[list[str | int | float | bool], Field(max_length=MOST_VALUES)]


class RerankParameters(_Strict):
    """Of `rerank`."""

    inference_name: Text | None = None
    feature_uri: Text | None = None
    query: Text
    top_k: Count | None = None
    document_field: Text | None = Field(None, description="what is read of a document; null is title and text")


class LimitParameters(_Strict):
    """Of `limit`."""

    limit: Count = RETURNED


class PipelineResult(BaseModel):
    """One document."""

    document_id: str | int
    score: float = Field(description="of the last stage that gave one")
    original_score: float = Field(description="of the search")
    rerank_position: int | None = Field(None, description="after the last reranking, 1 is best; null without one")
    truncated: bool = Field(description="whether the query or this document was cut before reranking")
    fields: dict[str, Scalar]


class StageReport(BaseModel):
    """What a stage did."""

    stage_id: str
    documents: int = Field(description="that it let through")
    milliseconds: float


class PipelineAnswer(BaseModel):
    """Documents, in the order of the last stage."""

    id: str
    results: list[PipelineResult]
    stages: list[StageReport]
