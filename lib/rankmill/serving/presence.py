"""Whether a deployment has a replica, found out while requests wait for one."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc  # type: ignore[import-untyped]
from ray.exceptions import RayActorError
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

DEAD = (RayActorError, grpc.aio.AioRpcError)
"""The replica died, or closed the connection before it answered."""

_EVERY = 1.0
"""Seconds between two questions, while something waits."""
_PATIENCE = 2.0
"""Seconds for an answer. It takes milliseconds: a replica answers beside its forward passes."""


class Presence:
    """Of a deployment's replicas, as one gateway sees it.

    Ray Serve holds a request until there is a replica for it, and says to nobody that there is none. So whoever waits
    is taken to wait for a busy replica for as long as the method `awake` is answered, and in vain where it is not.

    Args:
        handle: of a deployment with that method.
    """

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle
        self._waiting: set[asyncio.Timeout] = set()
        self._watching: asyncio.Task[None] | None = None
        self._missing_since: float | None = None

    @property
    def missing_seconds(self) -> float:
        """For how long no replica has answered, as far as somebody waited to see; 0.0 while one does."""
        return 0.0 if self._missing_since is None else time.monotonic() - self._missing_since

    async def answers(self) -> bool:
        """Whether a replica does now."""
        response = self._handle.awake.remote()
        try:
            async with asyncio.timeout(_PATIENCE):
                return bool(await response)
        except TimeoutError:
            response.cancel()  # type: ignore[no-untyped-call]
            return False
        except (DeploymentUnavailableError, *DEAD):
            return False

    @contextmanager
    def waiting(self, limit: asyncio.Timeout) -> Iterator[None]:
        """Watch for the length of a `with` block that waits for a replica's answer.

        Args:
            limit: of the wait; expires early where no replica will be seen before its time.
        """
        self._waiting.add(limit)
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            self._waiting.discard(limit)

    async def _watch(self) -> None:
        """Until nobody waits and nothing is missing; what is missing is looked for until it is back."""
        try:
            while self._waiting or self._missing_since is not None:
                await asyncio.sleep(_EVERY)
                await self._look()
        finally:
            self._missing_since = None  # where looking failed, nobody would ever look again

    async def _look(self) -> None:
        asked = time.monotonic()
        if await self.answers():
            self._missing_since = None
            return
        if self._missing_since is None:
            self._missing_since = asked
        now = asyncio.get_running_loop().time()
        for limit in self._waiting:
            end = limit.when()
            if end is not None and end < now + _EVERY + _PATIENCE and not limit.expired():
                limit.reschedule(now)
