"""One HTTP request and its answer, as ASGI has them."""

import asyncio
import contextlib
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, TypeVar

from rankmill.serving import limits
from rankmill.serving.request_error import Kind, RequestError
from rankmill.settings.gateway import GatewaySettings

T = TypeVar("T")
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON = "application/json"

SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
"""A request's id that logs and headers can hold."""
_LINGER_SECONDS = 1.0
_LINGER_BYTES = 64 * 1024 * 1024


class DisconnectedError(Exception):
    """The client went away: nobody is left to answer."""


class Exchange:
    """A request as it comes in, and its one answer.

    Args:
        scope: of ASGI, type `http`.
        receive: of ASGI.
        send: of ASGI.
    """

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        # below a prefix, ASGI gives the whole path and names the prefix apart
        self.path: str = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        self.headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        self.started = time.monotonic()
        self.request_id = _request_id(self.header(b"x-request-id"))
        self.status: int | None = None
        """Of the answer; None before there is one."""
        self._receive = receive
        self._send = send
        self._read_whole = not _has_body(scope)

    @property
    def seconds(self) -> float:
        """Since the request's headers were there."""
        return time.monotonic() - self.started

    def header(self, name: bytes) -> bytes | None:
        """The first header of a name (in lower case)."""
        return next((value for key, value in self.headers if key == name), None)

    def text(self, name: bytes) -> str:
        """The first header of a name as text; empty where there is none."""
        return (self.header(name) or b"").decode("latin-1")

    async def read(self, settings: GatewaySettings, hold: Callable[[int], None]) -> bytes:
        """Read the body, counting while it comes.

        Args:
            settings: the limits.
            hold: takes the bytes of each part before it is kept; raises what this then raises.

        Raises:
            RequestError: TOO_LARGE, or TOO_SLOW for a body that does not arrive in time.
            DisconnectedError: the client went away before its end.
        """
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(settings.body_seconds):
                while not self._read_whole:
                    part = await self._next_part()
                    size += len(part)
                    limits.check_bytes(size, settings)
                    hold(len(part))
                    parts.append(part)
        except TimeoutError as error:
            raise RequestError(
                Kind.TOO_SLOW, f"The body did not arrive within {settings.body_seconds:g} seconds."
            ) from error
        return b"".join(parts)

    async def unless_gone(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something for as long as the client waits for it; the body must have been read.

        Raises:
            DisconnectedError: it does not any more; the work was cancelled.
            Exception: whatever the work raised.
        """
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(self._gone())
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise DisconnectedError
        finally:
            task.cancel()
            gone.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)

    async def answer(self, status: int, body: bytes, content_type: str, headers: dict[str, str]) -> None:
        """Send the answer. Where the request's body was not read, the connection ends with it."""
        self.status = status
        everything = {
            "content-type": content_type,
            "content-length": str(len(body)),
            "x-request-id": self.request_id,
            "x-content-type-options": "nosniff",
            **headers,
        }
        if status == 304:
            del everything["content-length"]  # it would have to be that of what is not sent
        if not self._read_whole:
            everything["connection"] = "close"
        encoded = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in everything.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})
        await self._send(
            {"type": "http.response.body", "body": b"" if self.method == "HEAD" else body, "more_body": True}
        )
        if not self._read_whole:
            await self._linger()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _next_part(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise DisconnectedError
        self._read_whole = not message.get("more_body", False)
        part: bytes = message.get("body", b"")
        return part

    async def _gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _linger(self) -> None:
        """Throw away what still comes, for a while: closing on a client that is sending would cost it the answer."""
        left = _LINGER_BYTES
        with contextlib.suppress(TimeoutError, DisconnectedError):
            async with asyncio.timeout(_LINGER_SECONDS):
                while not self._read_whole and left > 0:
                    left -= len(await self._next_part())


def _has_body(scope: Message) -> bool:
    """Whether there may be one; before HTTP/2, a header must say so."""
    names = {name for name, _ in scope["headers"]}
    return not scope.get("http_version", "1.1").startswith("1.") or bool(
        names & {b"content-length", b"transfer-encoding"}
    )


def _request_id(given: bytes | None) -> str:
    """The client's own where it is one that logs and headers can hold."""
    text = (given or b"").decode("latin-1")
    return text if SANE_ID.fullmatch(text) else f"rr-{uuid.uuid4().hex}"
