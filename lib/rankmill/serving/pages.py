"""What the gateway says about itself and its models, on routes that rerank nothing."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import orjson
from pydantic import BaseModel

from rankmill import __version__
from rankmill.serving import page
from rankmill.serving.backend import Backend, ModelInfo
from rankmill.serving.dialects import catalogue
from rankmill.serving.dialects.info import Info, Probe
from rankmill.serving.exchange import JSON
from rankmill.serving.metrics import CONTENT_TYPE, Metrics
from rankmill.serving.online import find_model
from rankmill.serving.readiness import Readiness
from rankmill.settings.gateway import GatewaySettings

_STARTED = int(time.time())


@dataclass(frozen=True, slots=True)
class Page:
    """An answer about the gateway itself."""

    body: bytes
    status: int = 200
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


Writer = Callable[[Mapping[str, str]], Awaitable[Page]]
"""Makes the page of a route's parameters; raises RequestError."""


@dataclass(frozen=True, slots=True)
class Pages:
    """Makes them."""

    settings: GatewaySettings
    backend: Backend
    readiness: Readiness
    metrics: Metrics
    description: bytes
    """OpenAPI's."""

    def by_path(self) -> dict[str, Writer]:
        """What makes each page, by its route's Starlette template."""
        described = Page(self.description)
        written: dict[str, Writer] = {
            "/healthz": partial(_constant, _json(Probe(status="alive"))),
            "/readyz": self._ready,
            "/health": self._ready,
            "/.well-known/ready": self._ready,
            "/info": self._info,
            "/meta": self._info,
            "/v1/models": self._models,
            "/v1/models/{model:path}": self._model,
            "/v1/cluster/auth": partial(_constant, _json(catalogue.ClusterAuth())),
            "/metrics": self._numbers,
            "/openapi.json": partial(_constant, described),
        }
        for path, file in page.load().items():
            sent = Page(file.body, content_type=file.content_type, headers=file.headers)
            written[path] = partial(_constant, sent)
        return written

    async def _ready(self, _: Mapping[str, str]) -> Page:
        if await self.readiness.check():
            return _json(Probe(status="ready"))
        return _json(Probe(status="not ready"), 503)

    async def _info(self, _: Mapping[str, str]) -> Page:
        return _json(info(find_model(self.backend.models(), None), self.settings))

    async def _models(self, _: Mapping[str, str]) -> Page:
        models = self.backend.models().values()
        names = [(name, model) for model in models for name in (model.name, *model.aliases)]
        return _json(catalogue.models([_entry(name, model) for name, model in names]))

    async def _model(self, parameters: Mapping[str, str]) -> Page:
        name = parameters["model"]
        model = find_model(self.backend.models(), name)
        return _json(catalogue.model(_entry(name, model)))

    async def _numbers(self, _: Mapping[str, str]) -> Page:
        return Page(self.metrics.text(), content_type=CONTENT_TYPE)


def info(model: ModelInfo, settings: GatewaySettings) -> Info:
    """`GET /info` and `/meta`, of the default model."""
    return Info(
        model_id=model.name,
        model_sha=model.revision,
        model_dtype=model.card.precision,
        served_model_name=model.name,
        max_concurrent_requests=settings.max_running_requests,
        max_input_length=model.card.token_limit,
        max_batch_tokens=settings.max_request_tokens,
        max_client_batch_size=settings.max_documents,
        tokenization_workers=settings.tokenizer_threads,
        version=__version__,
    )


async def _constant(page: Page, _: Mapping[str, str]) -> Page:
    return page


def _json(value: BaseModel, status: int = 200) -> Page:
    return Page(orjson.dumps(value.model_dump()), status)


def _entry(name: str, model: ModelInfo) -> catalogue.Entry:
    return catalogue.Entry(name, model.name, model.revision, _STARTED, model.card.token_limit)
