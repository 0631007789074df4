"""An index that is searched in Ray Serve's replicas, with another try where one of them dies."""

import asyncio
from typing import Any

import grpc  # type: ignore[import-untyped]
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from rankmill.errors import StorageError
from rankmill.retrieval.retriever import Found, Mode
from rankmill.serving.index import IndexInfo
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
    """

    def __init__(self, info: IndexInfo, handle: DeploymentHandle[Any]) -> None:
        self._info = info
        self._handle = handle

    @property
    def modes(self) -> tuple[Mode, ...]:
        """See `Retriever`."""
        return self._info.modes

    @property
    def columns(self) -> tuple[str, ...]:
        """See `Retriever`."""
        return self._info.columns

    async def search(self, query: str, k: int, mode: Mode, filter: str | None = None) -> Found:  # noqa: A002
        """See `Retriever`; when too many searches wait, RequestError OVERLOADED."""
        for attempt in range(_TRIES):
            try:
                answer = await self._ask(query, k, mode, filter)
            except BackPressureError as error:
                raise RequestError(Kind.OVERLOADED, "Too many searches wait for the index.", retry_after=1.0) from error
            except (RayActorError, grpc.aio.AioRpcError, DeploymentUnavailableError):
                await asyncio.sleep(_PAUSE * 2**attempt)
                continue
            if isinstance(answer, Found):
                return answer
            raise answer
        raise StorageError(f"The replicas that search {self._info.uri} were lost while they did.")

    def close(self) -> None:
        """Nothing: the replicas end with the application."""

    async def _ask(self, query: str, k: int, mode: Mode, where: str | None) -> Any:
        response = self._handle.search.remote(query, k, mode, where)
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()  # type: ignore[no-untyped-call]
            raise
