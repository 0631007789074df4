"""Whether the gateway can rerank: asked by whatever sends it requests."""

import asyncio

from rankmill.serving.backend import Backend, ModelInfo
from rankmill.serving.encoders import Encoders
from rankmill.serving.online import find_model, prepare
from rankmill.serving.request import RerankRequest
from rankmill.serving.request_error import RequestError
from rankmill.settings.gateway import GatewaySettings

_CANARY = RerankRequest(queries=("is this model awake?",), documents=("This is a short document.", ""))
_SECONDS = 10.0


class Readiness:
    """Ready once the default model has scored a pair here, and for as long as something would score the next.

    Args:
        settings: the limits, which the canary keeps.
        backend: what scores.
        encoders: what tokenises.
    """

    def __init__(self, settings: GatewaySettings, backend: Backend, encoders: Encoders) -> None:
        self._settings = settings
        self._backend = backend
        self._encoders = encoders
        self._scored = False
        self._one_at_a_time = asyncio.Lock()

    async def check(self) -> bool:
        """Whether to send requests here now; the first time, this takes a forward pass."""
        model = find_model(self._backend.models(), None)
        if not await self._backend.ready(model.name):
            return False
        async with self._one_at_a_time:
            self._scored = self._scored or await self._score(model)
        return self._scored

    async def _score(self, model: ModelInfo) -> bool:
        pairs = prepare(_CANARY, model, self._encoders, self._settings).pairs
        try:
            await self._backend.score(model.name, pairs, _SECONDS)
        except RequestError:
            return False
        return True
