"""What the gateway says about the models it has, in the words of other servers' clients."""

import time
from typing import Any

from rankmill import __version__
from rankmill.serving.backend import ModelInfo
from rankmill.serving.dialects import catalogue
from rankmill.settings.gateway import GatewaySettings

_STARTED = int(time.time())


def model_list(models: list[ModelInfo]) -> dict[str, Any]:
    """`GET /v1/models`: every name that a request may give; the default model first."""
    names = [(name, model) for model in models for name in (model.name, *model.aliases)]
    return catalogue.models([_entry(name, model) for name, model in names]).model_dump()


def one_model(name: str, model: ModelInfo) -> dict[str, Any]:
    """`GET /v1/models/{model}`: what a name stands for."""
    return catalogue.model(_entry(name, model)).model_dump()


def info(model: ModelInfo, settings: GatewaySettings) -> dict[str, Any]:
    """`GET /info`, as TEI's clients read it, of the default model."""
    return {
        "model_id": model.name,
        "model_sha": model.revision,
        "model_dtype": model.card.precision,
        "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
        "max_concurrent_requests": settings.max_running_requests,
        "max_input_length": model.card.max_length,
        "max_batch_tokens": settings.max_request_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": settings.max_documents,
        "auto_truncate": True,
        "tokenization_workers": settings.tokenizer_threads,
        "version": __version__,
    }


def _entry(name: str, model: ModelInfo) -> catalogue.Entry:
    return catalogue.Entry(name, model.name, model.revision, _STARTED, model.card.max_length)
