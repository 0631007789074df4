"""Whether the gateway can rerank: asked by whatever sends it requests."""

import asyncio

from rankmill.serving.backend import Backend, ModelInfo, OtherVersionError
from rankmill.serving.encoders import Encoders
from rankmill.serving.online import find_model, prepare
from rankmill.serving.request import RerankRequest
from rankmill.serving.request_error import RequestError
from rankmill.settings.gateway import GatewaySettings

_CANARY = RerankRequest(queries=("is this model awake?",), documents=("This is a short document.", ""))
_LIMITS = GatewaySettings()
"""The canary keeps the usual ones: those of this endpoint are for its clients, and may be too low for it."""
_SECONDS = 10.0


class Readiness:
    """Ready once the default model has scored a pair here, and for as long as something would score the next.

    An index is not asked: where it cannot be read, searches get 503, and requests to rerank should still come here.

    Args:
        backend: what scores.
        encoders: what tokenises.
    """

    def __init__(self, backend: Backend, encoders: Encoders) -> None:
        self._backend = backend
        self._encoders = encoders
        self._scored = False
        self._trying: asyncio.Task[bool] | None = None

    async def check(self) -> bool:
        """Whether to send requests here now; the first time, one forward pass tells all who ask meanwhile."""
        model = find_model(self._backend.models(), None)
        if not await self._backend.ready(model.name):
            return False
        if not self._scored:
            if self._trying is None or self._trying.done():
                self._trying = asyncio.create_task(self._score(model))
            self._scored = await asyncio.shield(self._trying)
        return self._scored

    async def _score(self, model: ModelInfo) -> bool:
        pairs = prepare(_CANARY, model, self._encoders, _LIMITS).pairs
        try:
            await self._backend.score(model, pairs, _SECONDS)
        except RequestError:
            return False
        except OtherVersionError:
            return True  # it is there, and newer
        return True
