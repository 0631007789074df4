"""Many clients of a server at a time, on one event loop, that note every answer."""

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

BROKEN = 0
"""Status where the connection ended without an answer."""
Body = Callable[[int], dict[str, Any]]
"""The body of a request, by its number."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of one request."""

    number: int
    """Of the request, from 0 on."""
    status: int
    """`BROKEN` where there was no answer."""
    seconds: float
    headers: dict[str, str]
    """Names in lower case."""
    body: Any
    """Its JSON value; where it has none, the text, or the error of the connection."""


@dataclass(slots=True)
class Load:
    """What clients have seen so far."""

    replies: list[Reply] = field(default_factory=list)
    seconds: float = 0.0
    """From the first request to the last answer; of `arrivals` only."""

    def statuses(self) -> dict[int, int]:
        """How many of each."""
        return dict(Counter(reply.status for reply in self.replies))

    def wait_for(self, count: int) -> None:
        """Return once so many more requests have been answered than now."""
        wanted = len(self.replies) + count
        pause = threading.Event()
        for _ in range(1800):
            if len(self.replies) >= wanted:
                return
            pause.wait(0.1)
        raise AssertionError(f"{len(self.replies)} answers of {wanted}, and no more: {self.statuses()}")

    def wait_for_status(self, status: int) -> None:
        """Return once the last request that was answered has this one."""
        pause = threading.Event()
        for _ in range(18000):
            if self.replies and self.replies[-1].status == status:
                return
            pause.wait(0.01)
        raise AssertionError(f"no more {status} among {self.statuses()}")


@contextmanager
def clients(url: str, body: Body, *, count: int, path: str = "/v1/rerank") -> Iterator[Load]:
    """So many clients, each of which asks again as soon as it has its answer, until the end of the `with` block."""
    load, enough = Load(), threading.Event()
    numbers = itertools.count()

    async def client(session: aiohttp.ClientSession) -> None:
        while not enough.is_set():
            number = next(numbers)
            load.replies.append(await _ask(session, url + path, number, body(number)))

    thread = threading.Thread(target=lambda: asyncio.run(_together([client] * count)))
    thread.start()
    try:
        yield load
    finally:
        enough.set()
        thread.join(180)
        assert not thread.is_alive()


def arrivals(
    url: str,
    body: Body,
    *,
    per_second: float,
    count: int,
    path: str = "/v1/rerank",
    headers: Mapping[str, str] | None = None,
) -> Load:
    """Requests that come at a rate of their own, however long the answers take; returns when all are answered."""
    load = Load()

    async def client(session: aiohttp.ClientSession) -> None:
        async def one(number: int) -> None:
            await asyncio.sleep(number / per_second)
            load.replies.append(await _ask(session, url + path, number, body(number), headers))

        await asyncio.gather(*map(one, range(count)))

    started = time.monotonic()
    asyncio.run(_together([client]))
    load.seconds = time.monotonic() - started
    return load


async def _together(clients: list[Callable[[aiohttp.ClientSession], Awaitable[None]]]) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=180)) as session:
        await asyncio.gather(*(client(session) for client in clients))


async def _ask(
    session: aiohttp.ClientSession,
    url: str,
    number: int,
    body: dict[str, Any],
    headers: Mapping[str, str] | None = None,
) -> Reply:
    started = time.monotonic()
    try:
        async with session.post(url, json=body, headers=headers) as answer:
            is_json = answer.content_type == "application/json"
            content = await (answer.json() if is_json else answer.text())
            found = {name.lower(): value for name, value in answer.headers.items()}
            return Reply(number, answer.status, time.monotonic() - started, found, content)
    except aiohttp.ClientError as error:
        return Reply(number, BROKEN, time.monotonic() - started, {}, repr(error))
