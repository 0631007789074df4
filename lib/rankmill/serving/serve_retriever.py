"""An index that is searched in Ray Serve's replicas, with another try where one of them dies."""

import asyncio
import math
import time
from typing import Any

from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from rankmill.errors import StorageError
from rankmill.retrieval.retriever import Found, Mode
from rankmill.serving.index import IndexInfo
from rankmill.serving.presence import DEAD, Presence
from rankmill.serving.request_error import Kind, RequestError

_TRIES = 3
"""Searching twice is harmless: an index does not change."""
_PAUSE = 0.05
"""Seconds before the second try, in which Ray learns which replicas are left; doubled for the third."""


class ServeRetriever:
    """Asks the deployment of an index; lives in a gateway's replica. See `Retriever`.

    Args:
        info: the index.
        handle: of its deployment (`RetrieverDeployment`).
        presence: of its replicas, as this gateway knows it so far; None for a first look.
        seconds: to wait for an answer.
    """

    def __init__(
        self,
        info: IndexInfo,
        handle: DeploymentHandle[Any],
        presence: Presence | None = None,
        seconds: float = math.inf,
    ) -> None:
        self._info = info
        self._handle = handle
        self._presence = presence or Presence(handle)
        self._seconds = seconds

    @property
    def modes(self) -> tuple[Mode, ...]:
        """See `Retriever`."""
        return self._info.modes

    @property
    def columns(self) -> tuple[str, ...]:
        """See `Retriever`."""
        return self._info.columns

    async def search(self, query: str, k: int, mode: Mode, filter: str | None = None) -> Found:  # noqa: A002
        """See `Retriever`; also RequestError OVERLOADED, UNAVAILABLE where no replica is running, or DEADLINE."""
        end = time.monotonic() + self._seconds
        for attempt in range(_TRIES):
            try:
                answer = await self._ask(query, k, mode, filter, end - time.monotonic())
            except (*DEAD, DeploymentUnavailableError):
                await asyncio.sleep(_PAUSE * 2**attempt)
                continue
            if isinstance(answer, Found):
                return answer
            raise answer
        raise StorageError(f"The replicas that search {self._info.uri} were lost while they did.")

    def within(self, seconds: float) -> "ServeRetriever":
        """See `Retriever`."""
        return ServeRetriever(self._info, self._handle, self._presence, seconds)

    def close(self) -> None:
        """Nothing: the replicas end with the application."""

    async def _ask(self, query: str, k: int, mode: Mode, where: str | None, left: float) -> Any:
        if self._presence.missing_seconds >= left:
            raise _missing()
        response = self._handle.search.remote(query, k, mode, where)
        try:
            async with asyncio.timeout(left) as limit:
                with self._presence.waiting(limit):
                    return await response
        except TimeoutError as error:
            response.cancel()  # type: ignore[no-untyped-call]
            if self._presence.missing_seconds:
                raise _missing() from error
            raise RequestError(
                Kind.DEADLINE, "The index was not searched in the time that this request had."
            ) from error
        except asyncio.CancelledError:
            response.cancel()  # type: ignore[no-untyped-call]
            raise


def _missing() -> RequestError:
    return RequestError(
        Kind.UNAVAILABLE,
        "No replica that searches the index is running: it could not be started, or is being started. Try again soon.",
        retry_after=5.0,
    )
