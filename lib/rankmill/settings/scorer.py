"""Flags of every command that runs a model: which one, and how."""

from typing import Literal, Self

from pydantic import Field, model_validator

from rankmill.settings.load import CommandSettings


class ScorerSettings(CommandSettings):
    """What `rerank`, `score` and `bench` ask of a scorer (`rankmill.scoring.options.ScorerOptions`)."""

    model: str = Field("builtin", description="builtin, a hub id such as BAAI/bge-reranker-v2-m3, or a local folder")
    revision: str | None = Field(None, description="branch, tag or commit of a hub model")
    max_length: int | None = Field(None, ge=8, description="tokens per pair at most (default: the model's limit)")
    max_query_tokens: int | None = Field(None, ge=1, description="tokens of the query at most")
    precision: Literal["float32", "bfloat16", "float16"] = Field("float32", description="of the model's body")
    batch_tokens: int | None = Field(None, ge=1, description="padded tokens per forward pass (default: by device)")

    @model_validator(mode="after")
    def _room_for_a_document(self) -> Self:
        if (
            self.max_length is not None
            and self.max_query_tokens is not None
            and self.max_query_tokens >= self.max_length
        ):
            raise ValueError(
                f"--max-query-tokens {self.max_query_tokens} leaves no room for a document in --max-length "
                f"{self.max_length}."
            )
        return self
