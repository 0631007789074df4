"""`GET /v1/models`, `GET /v1/models/{model}` and `GET /v1/cluster/auth`: which models there are.

| client                                        | reads                                          |
|-----------------------------------------------|------------------------------------------------|
| OpenAI's and everything built on it           | `object`, `data[].id/object/created/owned_by`  |
| LangChain and llama-index for NIM             | `data[].id`, `data[].root`                     |
| cohere `models.list()`                        | `models[].name/endpoints/context_length`       |
| xinference-client `list_models`, `get_model`  | `data[].id`; `model_type`; `auth` of a cluster |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rankmill.serving.dialects.parts import Whole


class ClusterAuth(Whole):
    """Of `GET /v1/cluster/auth`."""

    auth: bool = False
    """xinference-client would fetch a token from `/token`; keys are sent as its `api_key` instead."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A name that a request may give."""

    name: str
    root: str
    """The model it stands for; itself unless it is an alias."""
    revision: str
    created: int
    """Seconds since 1970."""
    max_length: int | None
    """Tokens of a pair; None where nobody here knows a limit."""


class Model(Whole):
    """One model, for clients of OpenAI, NIM and Xinference."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["rankmill"] = "rankmill"
    root: str
    revision: str
    max_model_len: int | None
    model_type: Literal["rerank"] = "rerank"
    model_name: str
    model_uid: str


class CohereModel(Whole):
    """One model, for clients of Cohere."""

    name: str
    endpoints: list[Literal["rerank"]]
    default_endpoints: list[Literal["rerank"]]
    finetuned: bool
    context_length: int | None


class Models(Whole):
    """All models, the default one first."""

    object: Literal["list"] = "list"
    data: list[Model]
    models: list[CohereModel]


def model(entry: Entry) -> Model:
    """One model."""
    return Model(
        id=entry.name,
        created=entry.created,
        root=entry.root,
        revision=entry.revision,
        max_model_len=entry.max_length,
        model_name=entry.root,
        model_uid=entry.name,
    )


def models(entries: Sequence[Entry]) -> Models:
    """All of them, in the order given."""
    cohere = [
        CohereModel(
            name=entry.name,
            endpoints=["rerank"],
            default_endpoints=[],
            finetuned=False,
            context_length=entry.max_length,
        )
        for entry in entries
    ]
    return Models(data=[model(entry) for entry in entries], models=cohere)
