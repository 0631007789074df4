"""From a tokenised request to its logits, also while a new version of the model takes over."""

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass

from rankmill.serving.backend import Backend, ModelInfo, OtherVersionError, Scored
from rankmill.serving.encoders import Encoders
from rankmill.serving.exchange import Exchange
from rankmill.serving.metrics import Metrics
from rankmill.serving.online import Prepared, prepare
from rankmill.serving.recorder import Seen
from rankmill.serving.request import RerankRequest
from rankmill.serving.request_error import Kind, RequestError
from rankmill.settings.gateway import GatewaySettings

_TRIES = 20
"""Of one request, while replicas of two versions answer in turns: by chance, half of the tries meet the other one."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A scored request."""

    model: ModelInfo
    """The version that scored it, and tokenised it."""
    prepared: Prepared
    scored: Scored


@dataclass(frozen=True, slots=True)
class Forward:
    """Asks the backend, by one version of a model for all of a request's pairs."""

    settings: GatewaySettings
    backend: Backend
    encoders: Encoders
    threads: Executor
    """For what takes the processor."""
    metrics: Metrics

    async def tokens(self, request: RerankRequest, model: ModelInfo) -> Prepared:
        """Tokenise on a thread; see `prepare`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, prepare, request, model, self.encoders, self.settings)

    async def score(
        self,
        request: RerankRequest,
        model: ModelInfo,
        prepared: Prepared,
        exchange: Exchange,
        seen: Seen,
        allowed: float,
    ) -> Answered:
        """Score a request.

        Args:
            request: what is asked for.
            model: as this gateway knows it.
            prepared: its pairs, tokenised for that.
            exchange: the request; tells the time.
            seen: where the time is noted.
            allowed: seconds for the request, from its start.

        Raises:
            RequestError: as `Backend.score` and `prepare`.
        """
        start = exchange.seconds
        known = {model.card.fingerprint: prepared}
        for attempt in range(_TRIES):
            try:
                with self.metrics.queued(model.name, prepared.tokens):
                    scored = await self.backend.score(model, prepared.pairs, max(0.0, allowed - exchange.seconds))
            except OtherVersionError as other:
                if attempt % 2:  # routers prefer who did not answer last: turn for turn, it would always be the other
                    continue
                model = other.info
                if model.card.fingerprint not in known:
                    known[model.card.fingerprint] = await self.tokens(request, model)
                prepared = known[model.card.fingerprint]
            else:
                seen.add("score", exchange.seconds - start)
                return Answered(model, prepared, scored)
        raise RequestError(
            Kind.UNAVAILABLE, f"Several versions of {model.name!r} take turns at the moment.", retry_after=1.0
        )
