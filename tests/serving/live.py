"""A gateway in front of real scorers, on a real socket of this machine."""

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from rankmill.retrieval.retriever import Retriever
from rankmill.scoring.engines.choose import concrete
from rankmill.scoring.load import check_model
from rankmill.scoring.options import ScorerOptions
from rankmill.serving.backend import ModelInfo, Scored
from rankmill.serving.gateway import Gateway
from rankmill.serving.local_backend import LocalBackend
from rankmill.settings.gateway import GatewaySettings
from rankmill.types import EncodedPairs
from tests.tiny_models import save_tiny_model


class HeldBackend(LocalBackend):
    """Real scorers behind a gate, which counts those that wait at it and those that were cancelled there."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.open = threading.Event()
        self.open.set()
        self.waiting = 0
        self.cancelled = 0
        self.pairs: list[int] = []
        """Per call."""
        self._newer: LocalBackend | None = None

    async def score(self, model: ModelInfo, pairs: EncodedPairs, deadline: float) -> Scored:
        """See `Backend`."""
        self.pairs.append(len(pairs))
        self.waiting += 1
        try:
            while not self.open.is_set():  # noqa: ASYNC110 - the event is set by the test's thread
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1
        if self._newer is not None and len(self.pairs) % 2:
            return await self._newer.score(model, pairs, deadline)
        return await super().score(model, pairs, deadline)

    def take_over(self, info: ModelInfo) -> None:
        """Score by another version of a model from now on; the gateway is not told."""
        newer = LocalBackend.load({info.name: info}, queue_tokens=1_000_000, cache_bytes=0)
        self._models = {**self._models, info.name: info}
        self._replicas = {**self._replicas, **newer._replicas}

    def take_turns(self, info: ModelInfo) -> None:
        """Have every other call answered by another version of a model; the gateway is not told."""
        self._newer = LocalBackend.load({info.name: info}, queue_tokens=1_000_000, cache_bytes=0)


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def json(self) -> Any:
        """The body's value."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Live:
    """A server that runs."""

    port: int
    gateway: Gateway
    backend: HeldBackend

    def ask(
        self, method: str, path: str, body: bytes | Iterator[bytes] | None = None, headers: Mapping[str, str] = {}
    ) -> Answer:
        """One request on a connection of its own; an iterator is sent in chunks."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, dict(headers), encode_chunked=isinstance(body, Iterator))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def post(self, value: Any, path: str = "/v1/rerank", headers: Mapping[str, str] = {}) -> Answer:
        """Send a JSON value, or bytes as they are."""
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return self.ask("POST", path, body, {"Content-Type": "application/json", **headers})

    def connect(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def metric(self, line: str) -> float:
        """The value of the metric whose line begins like this; 0 where there is none."""
        lines = self.gateway.metrics.text().decode().splitlines()
        return next((float(found.rsplit(" ", 1)[1]) for found in lines if found.startswith(line)), 0.0)


def tiny(folder: Path, name: str = "tiny", *, family: str = "bert", default: bool = True, seed: int = 0) -> ModelInfo:
    """A configured model with random weights, and an alias."""
    options = concrete(ScorerOptions(model=str(save_tiny_model(folder / name, family, seed)), threads=1))
    return ModelInfo(name=name, aliases=(f"{name}-alias",), card=check_model(options), options=options, default=default)


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something is true."""
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen within 10 seconds")


@contextmanager
def live(settings: GatewaySettings, *models: ModelInfo, retriever: Retriever | None = None) -> Iterator[Live]:
    """Run a gateway until the end of the `with` block."""
    backend = HeldBackend.load({model.name: model for model in models}, queue_tokens=1_000_000, cache_bytes=1_000_000)
    assert isinstance(backend, HeldBackend)
    gateway = Gateway(settings, backend, retriever)
    server = uvicorn.Server(
        uvicorn.Config(
            gateway, ws="none", lifespan="on", log_config=None, access_log=False, timeout_graceful_shutdown=1
        )
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                thread.join(0.01)
            yield Live(listener.getsockname()[1], gateway, backend)
        finally:
            backend.open.set()
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()
