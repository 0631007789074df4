"""Flags of every command that runs a model: which one, and how."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rankmill.settings.load import CommandSettings


class ScorerSettings(CommandSettings):
    """What `rerank`, `score` and `bench` ask of a scorer (`rankmill.scoring.options.ScorerOptions`)."""

    model: str = Field(
        "builtin",
        description="builtin, a hub id such as BAAI/bge-reranker-v2-m3, a local folder, python:package.module:Class "
        "for a scorer of your own, or the http(s) URL of a scoring endpoint",
    )
    revision: str | None = Field(None, description="branch, tag or commit of a hub model")
    trust_remote_code: bool = Field(
        False, description="run the Python code in a model's folder, where it brings its own; it can do anything"
    )
    template: str | None = Field(
        None, description="prompt of a language model, such as qwen3-reranker@1 (default: as its own files say)"
    )
    instruction: str | None = Field(None, description="what a language model is told to judge by (default: its own)")
    listwise: bool = Field(
        False, description="of an endpoint: a document's score depends on the others of its query; send them together"
    )
    max_length: int | None = Field(None, ge=8, description="tokens per pair at most (default: the model's limit)")
    max_query_tokens: int | None = Field(None, ge=1, description="tokens of the query at most")
    max_document_tokens: int | None = Field(None, ge=1, description="tokens of a document at most, read or in chunks")
    long_documents: Literal["truncate", "chunk"] = Field(
        "truncate", description="cut documents that do not fit, or score them in chunks and take the best"
    )
    chunk_overlap: int | None = Field(
        None, ge=0, description="tokens that neighbouring chunks share (default: a quarter of a chunk)"
    )
    engine: Literal["auto", "torch", "openvino"] = Field("auto", description="what runs the forward pass")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of the model's body; auto: float32 on a CPU, bfloat16 on a GPU"
    )
    deterministic: bool = Field(False, description="the same input gives the same bits on the same machine")
    batch_tokens: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        None, description="padded tokens per forward pass, or auto to measure (default: by device)"
    )

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
        if self.chunk_overlap is not None and self.long_documents != "chunk":
            raise ValueError(f"--chunk-overlap {self.chunk_overlap} needs --long-documents chunk.")
        return self
