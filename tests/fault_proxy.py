"""A proxy in front of an S3 server that does what networks and overloaded stores do; on loopback, on a thread.

It forwards the path and the Host header as they came, so that signatures stay valid.
"""

import asyncio
import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

Kind = Literal[
    "slow_down",
    "error_500",
    "conflict_409",
    "expired",
    "denied",
    "denied_keys",
    "reset_before",
    "reset_after",
    "truncate",
    "stall",
]
"""`reset_before` and `reset_after`: the connection is cut before the server saw the request, or after it acted on it.
`denied_keys`: how AWS refuses to delete. `truncate`: half of the body and then the end. `stall`: half of it and then
nothing."""

STORM: tuple[Kind, ...] = ("slow_down", "error_500", "reset_before", "reset_after", "truncate")
"""What may happen to any request, at random."""

_ANSWERS: dict[str, tuple[int, str]] = {
    "slow_down": (503, "SlowDown"),
    "error_500": (500, "InternalError"),
    "conflict_409": (409, "ConditionalRequestConflict"),
    "expired": (400, "ExpiredToken"),
    "denied": (403, "AccessDenied"),
    "denied_keys": (200, "AccessDenied"),
}
_NOT_FORWARDED = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade"}
_REMADE = {*_NOT_FORWARDED, "content-length", "date", "server"}


@dataclass
class Fault:
    """What happens to requests that match; the first `skip` of them get through, then `times` are hit."""

    kind: Kind
    method: str = ".*"
    path: str = ""
    """Regular expression, searched for in the path."""
    times: int = 1
    skip: int = 0
    then: Callable[[], None] | None = None
    """Called when it has happened, before the sender can know; to kill it, for example."""
    port: int = 0
    """From which the sender's connection came that was cut last."""
    seen: int = 0
    hits: int = 0

    def strikes(self, method: str, path: str) -> bool:
        """Whether it happens to this request; counts it."""
        if not re.fullmatch(self.method, method) or not re.search(self.path, path):
            return False
        self.seen += 1
        if self.seen <= self.skip or self.hits >= self.times:
            return False
        self.hits += 1
        return True


@dataclass
class FaultProxy:
    """A running proxy."""

    upstream: str
    faults: list[Fault] = field(default_factory=list)
    """Faults on order; a test may add to them at any time."""
    probability: float = 0.0
    """Of a random fault, for each request that no fault on order strikes."""
    kinds: Sequence[Kind] = STORM
    seed: int = 0
    dropped_headers: Sequence[str] = ()
    """Request headers that are kept from the server, in lower case: it then behaves as if it did not know them."""
    requests: list[tuple[str, str, Kind | None]] = field(default_factory=list)
    """Method, path and what happened to each request so far."""
    signers: set[str] = field(default_factory=set)
    """Access key ids that requests were signed with."""
    port: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 - a test's dice

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self.port}"

    def struck(self) -> Counter[Kind]:
        """How often each kind of fault happened."""
        return Counter(kind for _, _, kind in self.requests if kind is not None)

    def choose(self, method: str, path: str) -> Fault | None:
        """What happens to a request."""
        fault = next((fault for fault in self.faults if fault.strikes(method, path)), None)
        if fault is None and self._random.random() < self.probability:
            fault = Fault(self._random.choice(self.kinds))
        self.requests.append((method, path, fault.kind if fault else None))
        return fault

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        fault = self.choose(request.method, request.path)
        kind = fault.kind if fault else None
        self.signers.update(re.findall(r"Credential=([^/]+)/", request.headers.get("Authorization", "")))
        if fault and kind == "reset_before":
            return _reset(request, fault)
        body = await request.read()
        if kind in _ANSWERS:
            status, code = _ANSWERS[kind]
            text = f"<Error><Code>{code}</Code><Message>injected</Message></Error>"
            if kind == "denied_keys":
                keys = re.findall(r"<Key>.*?</Key>", body.decode())
                text = "".join(text.replace("<Error>", f"<Error>{key}") for key in keys)
                text = f"<DeleteResult>{text}</DeleteResult>"
            return web.Response(status=status, text=text, content_type="application/xml")
        skipped = {*_NOT_FORWARDED, *self.dropped_headers}
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in skipped]
        session: ClientSession = request.app[_SESSION]
        async with session.request(
            request.method,
            self.upstream + request.raw_path,
            headers=headers,
            data=body if body or request.method in {"PUT", "POST"} else None,
            allow_redirects=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        ) as answer:
            content = await answer.read()
        if fault and kind == "reset_after":
            return _reset(request, fault)
        response = web.StreamResponse(status=answer.status, reason=answer.reason)
        for name, value in answer.headers.items():
            if name.lower() not in _REMADE:
                response.headers.add(name, value)
        is_head = request.method == "HEAD"
        length = answer.headers.get("Content-Length") if is_head else str(len(content))
        if length is not None:
            response.headers["Content-Length"] = length
        await response.prepare(request)
        if is_head:
            return response
        if fault and kind in {"truncate", "stall"} and content:
            await response.write(content[: len(content) // 2])
            await asyncio.sleep(0.02 if kind == "truncate" else 3600)
            return _reset(request, fault)
        await response.write(content)
        await response.write_eof()
        return response


_SESSION: web.AppKey[ClientSession] = web.AppKey("session", ClientSession)


@contextmanager
def running_fault_proxy(proxy: FaultProxy) -> Iterator[FaultProxy]:
    """Run `proxy` for the length of the block."""
    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", proxy.handle)
        connector = TCPConnector(limit=0, force_close=True)
        async with ClientSession(connector=connector, auto_decompress=False, timeout=ClientTimeout(60)) as session:
            app[_SESSION] = session
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            listening = socket.create_server(("127.0.0.1", 0))
            proxy.port = listening.getsockname()[1]
            await web.SockSite(runner, listening).start()
            ready.set()
            await stop.wait()
            await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    try:
        if not ready.wait(30):
            raise RuntimeError("the fault proxy did not start within 30 s")
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def _reset(request: web.Request, fault: Fault) -> web.Response:
    """Cut the connection with an RST."""
    if request.transport is not None:
        fault.port = request.transport.get_extra_info("peername")[1]
    if fault.then is not None:
        fault.then()
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return web.Response()
