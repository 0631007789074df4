"""What runs in Ray Serve's replicas. Plain classes, made deployments of in serve/app.py."""

import asyncio
import logging
import os
from collections.abc import Collection, Mapping
from typing import Any

from ray.serve.handle import DeploymentHandle

from rankmill.errors import RankmillError, StorageError
from rankmill.retrieval.retriever import Found, Mode
from rankmill.serving.backend import ModelInfo, Scored
from rankmill.serving.exchange import Message, Receive, Send
from rankmill.serving.gateway import Gateway
from rankmill.serving.index import IndexInfo, open_index
from rankmill.serving.logs import event, log_json, where
from rankmill.serving.replica import Replica
from rankmill.serving.request_error import Kind, RequestError
from rankmill.serving.scaling import BUSY, QUEUED_SECONDS
from rankmill.serving.serve_backend import ServeBackend
from rankmill.serving.serve_retriever import ServeRetriever
from rankmill.serving.wire import widened
from rankmill.settings.gateway import GatewaySettings
from rankmill.types import EncodedPairs

_log = logging.getLogger(__name__)

_UNUSABLE = 86
"""Exit code of a replica that cannot go on after an error of its accelerator."""
_SEARCHES = 16
"""Searches at a time in a replica of the index: each may hold a thread."""
_WAITING_SEARCHES = 256
"""Searches that may wait in a replica before it refuses more."""


class ScorerDeployment:
    """A replica of one model.

    Args:
        info: the model.
        queue_tokens: tokens that may wait.
        cache_bytes: memory for known scores; 0 keeps none.

    Raises:
        ModelError: it cannot be used, or failed its self-test: Ray Serve keeps the replicas of before.
    """

    def __init__(self, info: ModelInfo, queue_tokens: int, cache_bytes: int) -> None:
        log_json()
        self._info = info
        self._replica = Replica.of(info, queue_tokens=queue_tokens, cache_bytes=cache_bytes)

    async def score(self, pairs: EncodedPairs, deadline: float, fingerprint: str) -> Scored | RequestError | ModelInfo:
        """Score pairs; what goes wrong as expected is returned, because Ray logs what is raised with its traceback.

        Args:
            pairs: of the scorer with this fingerprint, `narrowed`.
            deadline: as for `Backend.score`.
            fingerprint: of another scorer, where this one has just taken over: then the answer is what this one is.
        """
        if fingerprint != self._info.card.fingerprint:
            return self._info
        try:
            return await self._replica.score(widened(pairs), deadline)
        except RequestError as error:
            if self._replica.broken:  # who waits here is scored by another replica, and Ray Serve starts a new one
                os._exit(_UNUSABLE)
            return error

    async def awake(self) -> bool:
        """Answer."""
        return True

    async def check_health(self) -> None:
        """Run a pair through the model; Ray Serve replaces the replica where this fails."""
        await self._replica.check()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What `QueuedWorkPolicy` goes by."""
        queued_seconds, busy = self._replica.load()
        return {QUEUED_SECONDS: queued_seconds, BUSY: busy}


class RetrieverDeployment:
    """A replica that searches the index.

    A process of its own: embedding a query takes a core for milliseconds, in which a gateway would answer nobody.
    Searches wait in here for their turn, and not in Ray Serve, behind which `awake` would wait as well.

    Args:
        info: the index.
    """

    async def __init__(self, info: IndexInfo) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        log_json()
        self._retriever = await open_index(info)
        self._places = asyncio.Semaphore(_SEARCHES)
        self._inside = 0

    async def search(self, query: str, k: int, mode: Mode, filter_: str | None) -> Found | RankmillError:
        """Find documents; what goes wrong as expected is returned, as in `ScorerDeployment.score`."""
        if self._inside >= _SEARCHES + _WAITING_SEARCHES:
            return RequestError(Kind.OVERLOADED, "Too many searches wait for the index.", retry_after=1.0)
        self._inside += 1
        try:
            async with self._places:
                return await self._retriever.search(query, k, mode, filter_)
        except RankmillError as error:
            if isinstance(error, StorageError):
                _report(error)
            return error
        finally:
            self._inside -= 1

    async def awake(self) -> bool:
        """Answer."""
        return True


def _report(error: StorageError) -> None:
    """Say what the index's library raised and where; not its message, which may quote a query."""
    cause = error.__cause__ or error
    event(_log, logging.ERROR, "the index cannot be read", error=type(cause).__name__, where=where(cause))


class GatewayDeployment:
    """A replica of the gateway; Ray Serve hands it every request.

    Args:
        settings: limits and deadlines.
        models: by name, the default one first.
        scorers: handles of the models' deployments.
        sleepers: models that may have no replica.
        index: the one that is searched; None is none.
        retriever: handle of its deployment.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        models: Mapping[str, ModelInfo],
        scorers: Mapping[str, DeploymentHandle[Any]],
        sleepers: Collection[str],
        index: IndexInfo | None = None,
        retriever: DeploymentHandle[Any] | None = None,
    ) -> None:
        log_json()
        searching = None if index is None or retriever is None else ServeRetriever(index, retriever)
        self._gateway = Gateway(settings, ServeBackend(models, scorers, sleepers), searching)

    def __serve_build_asgi_app__(self) -> "OneRequestId":
        """What answers; Ray Serve asks for it by this name."""
        return OneRequestId(self._gateway)


class OneRequestId:
    """Leaves the request's id to Ray Serve, which adds it to every answer: clients would see the header twice."""

    def __init__(self, app: Gateway) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request; of ASGI."""
        added = [pair for pair in scope.get("headers", ()) if pair[0] == b"x-request-id"]

        async def send_once(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [pair for pair in message["headers"] if pair not in added]
            await send(message)

        await self._app(scope, receive, send_once)
