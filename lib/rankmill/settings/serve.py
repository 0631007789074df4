"""Settings of `rankmill serve`, and of `serve deploy serve/config.yaml`."""

import re
from pathlib import PurePath
from typing import Self, TypeVar

from pydantic import Field, model_validator

from rankmill.settings.gateway import GatewaySettings
from rankmill.settings.load import CommandSettings
from rankmill.settings.rerank import Names, Workers
from rankmill.settings.scorer import ScorerSettings
from rankmill.settings.storage import StorageSettings


class ModelSettings(ScorerSettings):
    """A model to serve, and the replicas that score it."""

    name: str | None = Field(
        None, min_length=1, description="what clients call the model (default: the hub id, or the folder's name)"
    )
    aliases: Names = Field((), description="other names for it, comma separated, such as rerank-v3.5")
    replicas: Workers = Field((1, 1), description="replicas: N, or MIN,MAX to scale with the work; MIN may be 0")
    gpus_per_replica: float | None = Field(
        None, ge=0, description="GPUs per replica, fractions allowed (default: 1 where there is one, else 0)"
    )
    threads: int | None = Field(
        None, ge=1, description="threads of a replica without a GPU (default: this machine's cores, or 1 on a cluster)"
    )
    queue_tokens: int = Field(
        1_000_000, ge=1, description="tokens that may wait for a replica before requests are refused"
    )
    cache_bytes: int = Field(
        64_000_000, ge=0, description="memory of a replica for the scores of pairs that come again; 0 for none"
    )
    scale_seconds: float = Field(1.0, gt=0, description="seconds of work waiting per replica that ask for another one")

    @property
    def public_name(self) -> str:
        """What clients call it."""
        if self.name is not None:
            return self.name
        return PurePath(self.model).name if self.model.startswith(("/", ".", "~")) else self.model

    @model_validator(mode="after")
    def _names_and_replicas(self) -> Self:
        if self.name is None and self.model.startswith(("http://", "https://", "python:")):
            raise ValueError(f"--model {self.model} needs a --name: clients should not have to know where it is.")
        low, high = self.replicas
        if not 0 <= low <= high or high < 1:
            raise ValueError(f"--replicas {low},{high}: the minimum must be at most the maximum, which is at least 1.")
        return self


class EndpointSettings(ModelSettings, GatewaySettings):
    """Rerank over HTTP: one model given by the flags, or several as a list of `models` in a --config file.

    The endpoint speaks the formats of Cohere, Jina, Voyage, Text Embeddings Inference, vLLM and others.
    """

    models: tuple[ModelSettings, ...] = Field(
        (), description="in a --config file: several models, each with its name and the flags of one; first is default"
    )
    index: str | None = Field(
        None, description="index for /v1/search: a folder, s3://bucket/folder or a Milvus, as `rankmill index` built it"
    )
    index_model: str | None = Field(
        None, description="bi-encoder of its vectors (default: as the index says; a Milvus does not say)"
    )
    index_replicas: int = Field(1, ge=1, description="processes that search the index")
    storage: StorageSettings = Field(default_factory=StorageSettings)
    gateways: int = Field(1, ge=1, description="processes that take requests in and tokenise them")
    surge_percent: int = Field(
        25,
        ge=0,
        le=100,
        description="of the replicas of each model, the gateways and the index, how many more (1 at least) a new "
        "version may have while the old ones go on; 0 where there is no room for that: old ones then stop first",
    )

    @property
    def served(self) -> tuple[ModelSettings, ...]:
        """Every model; the first is for requests that name none."""
        return self.models or (_part(self, ModelSettings),)

    @property
    def gateway(self) -> GatewaySettings:
        """What a gateway goes by."""
        return _part(self, GatewaySettings)

    @model_validator(mode="after")
    def _model_of_an_index(self) -> Self:
        if self.index_model is not None and self.index is None:
            raise ValueError(f"--index-model {self.index_model} needs the --index whose vectors it made.")
        return self

    @model_validator(mode="after")
    def _one_way_to_name_models(self) -> Self:
        both = sorted(self.model_fields_set & set(ModelSettings.model_fields)) if self.models else []
        changed = [name for name in both if getattr(self, name) != ModelSettings.model_fields[name].default]
        if changed:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in changed)
            raise ValueError(f"{flags}: with a list of models, each of them has its own; put it there.")
        seen: dict[str, str] = {}
        for model in self.served:
            for name in (model.public_name, *model.aliases):
                if name in seen:
                    raise ValueError(f"The name {name!r} is given to two models; names and aliases must differ.")
                seen[name] = model.public_name
        slugs = {deployment_name(model.public_name) for model in self.served}
        if len(slugs) < len(self.served):
            raise ValueError("The names of two models differ in punctuation only; give one of them another --name.")
        return self


class ServeSettings(EndpointSettings):
    """Serve a reranker over HTTP, on this machine or on a Ray cluster.

    The endpoint speaks the formats of Cohere, Jina, Voyage, Text Embeddings Inference, vLLM and others.
    """

    host: str = Field("127.0.0.1", description="address to listen on; one that others can reach needs API keys")
    port: int = Field(8000, ge=1, le=65535, description="port to listen on")
    haproxy: bool = Field(True, description="HAProxy in front, on a Ray started here; off: Ray's own proxy, slower")
    address: str | None = Field(None, description="Ray cluster to use (default: RAY_ADDRESS, else start one here)")
    start_timeout: float = Field(
        600.0, gt=0, description="seconds for all models to be loaded, downloads and new machines included"
    )
    quiet: bool = Field(False, description="no logs")


P = TypeVar("P", bound=CommandSettings)


def _part(settings: EndpointSettings, part: type[P]) -> P:
    return part(**{name: getattr(settings, name) for name in part.model_fields})


def deployment_name(public_name: str) -> str:
    """A model's deployment in Ray Serve: letters, digits and dashes."""
    return "scorer-" + re.sub(r"[^A-Za-z0-9]+", "-", public_name).strip("-").lower()
