"""How much the gateway takes in at a time: places for requests that are worked on, memory for those that arrive."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from rankmill.serving import limits
from rankmill.serving.exchange import Exchange
from rankmill.serving.metrics import Metrics
from rankmill.serving.recorder import Seen
from rankmill.serving.request_error import Kind, RequestError
from rankmill.settings.gateway import GatewaySettings

T = TypeVar("T")


class Admission:
    """Lets requests in; lives on one event loop.

    A body that is still arriving takes memory and no place: however many clients send slowly, the others are served.
    All bodies together take no more memory than a full house of the largest ones.

    Args:
        settings: the limits.
        metrics: which count those that are worked on.
    """

    def __init__(self, settings: GatewaySettings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._running = 0
        self._bytes = 0
        self._most_bytes = settings.max_running_requests * settings.max_body_bytes

    async def run(self, exchange: Exchange, seen: Seen, work: Callable[[bytes, float], Coroutine[Any, Any, T]]) -> T:
        """Read the body and work on it, with the seconds that the request may take, while its client waits.

        Raises:
            RequestError: the limits are passed, OVERLOADED, TOO_SLOW, DEADLINE, or whatever `work` raises.
            DisconnectedError: the client went away; the work was cancelled.
        """
        limits.check_headers(exchange.headers, self._settings)
        allowed = limits.time_allowed(exchange.headers, self._settings)
        self._refuse_full_house()
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            if self._bytes + size > self._most_bytes:
                raise RequestError(Kind.OVERLOADED, "Too many bodies are arriving; try again soon.", retry_after=1)
            self._bytes += size
            held += size

        try:
            async with asyncio.timeout(allowed):
                body = await exchange.read(self._settings, hold)
                seen.seconds["read"] = exchange.seconds
                return await self._in_place(exchange, work(body, allowed))
        except TimeoutError as error:
            raise RequestError(Kind.DEADLINE, f"There was no result within {allowed:g} seconds.") from error
        finally:
            self._bytes -= held

    async def _in_place(self, exchange: Exchange, work: Coroutine[Any, Any, T]) -> T:
        try:
            self._refuse_full_house()  # it may have filled up while the body came
        except RequestError:
            work.close()
            raise
        self._running += 1
        self._metrics.started()
        try:
            return await exchange.unless_gone(work)
        finally:
            self._running -= 1
            self._metrics.ended()

    def _refuse_full_house(self) -> None:
        if self._running >= self._settings.max_running_requests:
            raise RequestError(
                Kind.OVERLOADED, f"{self._running} requests are being worked on; try again soon.", retry_after=1
            )
