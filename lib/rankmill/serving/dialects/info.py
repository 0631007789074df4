"""`GET /info`, text-embeddings-inference's; `/meta`, for which Weaviate takes any object; and what probes are told."""

from typing import Literal

from rankmill.serving.dialects.parts import Whole


class Labels(Whole):
    """Of a model with one output."""

    id2label: dict[str, str]
    label2id: dict[str, int]


_ONE = Labels(id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0})


class ModelType(Whole):
    """What the model does."""

    reranker: Labels = _ONE


class Info(Whole):
    """The default model, and the limits of requests."""

    model_id: str
    model_sha: str
    model_dtype: str
    model_type: ModelType = ModelType()
    served_model_name: str
    max_concurrent_requests: int
    max_input_length: int | None
    """Tokens of a pair; None where nobody here knows a limit."""
    max_batch_tokens: int
    max_batch_requests: int | None = None
    max_client_batch_size: int
    auto_truncate: Literal[True] = True
    tokenization_workers: int
    version: str


class Probe(Whole):
    """How the gateway is."""

    status: Literal["alive", "ready", "not ready"]
