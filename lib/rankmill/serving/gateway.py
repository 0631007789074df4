"""The endpoint: an ASGI application that turns requests of every dialect into pairs, and logits into answers.

One request: key → limits → body → dialect → tokens (on a thread) → backend → ranking → the dialect's answer. Nothing
here computes on the event loop for long, and nothing waits without a limit.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
import orjson

from rankmill.retrieval.retriever import Retriever
from rankmill.serving import limits, page, pages, strict_json
from rankmill.serving.backend import Backend, ModelInfo, Scored
from rankmill.serving.dialects import msgpack
from rankmill.serving.dialects.catalogue import ClusterAuth
from rankmill.serving.dialects.routes import ROUTES, choose
from rankmill.serving.encoders import Encoders
from rankmill.serving.exchange import JSON, DisconnectedError, Exchange, Message, Receive, Send
from rankmill.serving.keys import Keys, refuse_keyless
from rankmill.serving.logs import event, where
from rankmill.serving.metrics import CONTENT_TYPE, Metrics
from rankmill.serving.online import Prepared, find_model, finish, prepare
from rankmill.serving.openapi import describe
from rankmill.serving.pipelines import Around
from rankmill.serving.readiness import Readiness
from rankmill.serving.recorder import Recorder, Seen
from rankmill.serving.request import RerankRequest
from rankmill.serving.request_error import Kind, RequestError
from rankmill.serving.routing import Match, RouteTable
from rankmill.serving.search import Rerank, Reranked
from rankmill.serving.two_stages import TWO_STAGES, there
from rankmill.settings.gateway import GatewaySettings

log = logging.getLogger(__name__)
T = TypeVar("T")

_STANDARD = ROUTES[0].dialects[-1]
_OPEN = frozenset({"/healthz", "/readyz", "/health", "/info", "/v1/cluster/auth", *page.PATHS})
"""Asked by machines that have no key, by clients before they send theirs, and by browsers."""
_RETRYABLE = (Kind.OVERLOADED, Kind.UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class _Page:
    """An answer about the gateway itself."""

    body: bytes
    status: int = 200
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Job:
    """A request, understood and tokenised."""

    body: Any
    request: RerankRequest
    model: ModelInfo
    prepared: Prepared


class Gateway:
    """The ASGI application.

    Args:
        settings: limits, keys, deadlines.
        backend: what scores.
        retriever: what searches, for the routes that do; None is no index.

    Raises:
        ModelError: a model's tokeniser cannot be loaded.
        UsageError: the keys file cannot be read, or there are no keys where there must be.
    """

    def __init__(self, settings: GatewaySettings, backend: Backend, retriever: Retriever | None = None) -> None:
        self.settings = settings
        self.backend = backend
        self.retriever = retriever
        self.keys = Keys(settings.keys_file)
        refuse_keyless(settings, self.keys)
        self._models = backend.models()
        self.metrics = Metrics(self._models.values())
        self._encoders = Encoders(list(self._models.values()), settings.encoder_variants)
        self._readiness = Readiness(settings, backend, self._encoders)
        self._threads = ThreadPoolExecutor(settings.tokenizer_threads, thread_name_prefix="prepare")
        self._running = 0
        self._pages: dict[str, Callable[[Mapping[str, str]], Awaitable[_Page]]] = {
            "/healthz": self._alive,
            "/readyz": self._ready,
            "/health": self._ready,
            "/info": self._info,
            "/v1/models": self._list_models,
            "/v1/models/{model:path}": self._show_model,
            "/v1/cluster/auth": self._cluster,
            "/metrics": self._read_metrics,
            "/openapi.json": self._describe,
        }
        for path, file in page.load().items():
            self._pages[path] = partial(self._send_file, file)
        self._routes = RouteTable(ROUTES, self._pages, TWO_STAGES)
        self._recorder = Recorder(self.metrics, self._pages)
        self._description = orjson.dumps(describe(ROUTES))

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, or take part in the server's start and end."""
        if scope["type"] == "http":
            await self._answer(Exchange(scope, receive, send))
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1003})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._threads.shutdown(wait=False, cancel_futures=True)
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, exchange: Exchange) -> None:
        seen = Seen(_STANDARD)
        try:
            await self._serve(exchange, seen)
        except DisconnectedError:
            seen.reason = "GONE"
        except RequestError as error:
            await self._refuse(exchange, seen, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer and the log the place
            event(
                log,
                logging.ERROR,
                "bug",
                request_id=exchange.request_id,
                error=type(error).__name__,
                where=where(error),
            )
            message = "Something went wrong here; the log has it, under the id of this request."
            await self._refuse(exchange, seen, RequestError(Kind.INTERNAL, message))
        finally:
            self._recorder.note(exchange, seen)

    async def _serve(self, exchange: Exchange, seen: Seen) -> None:
        match = self._routes.find(exchange.method, exchange.path)
        if match is not None:
            seen.route = match.template
            if match.route is not None:
                seen.dialect = match.route.dialects[-1]
        if seen.route not in _OPEN and not self.keys.accept(exchange.headers):
            raise RequestError(Kind.UNAUTHORIZED, "This needs an API key: Authorization: Bearer KEY.")
        if match is None:
            raise RequestError(Kind.UNKNOWN_ROUTE, "There is no such path here; /openapi.json lists those that are.")
        if exchange.method not in match.methods:
            raise RequestError(Kind.METHOD, f"This path answers to {' and '.join(match.methods)} only.")
        if match.template in TWO_STAGES:
            await self._search(exchange, match.template, seen)
        elif match.route is None:
            found = await self._pages[match.template](match.parameters)
            etag = found.headers.get("etag")
            status = 304 if etag and exchange.text(b"if-none-match") == etag else found.status
            await exchange.answer(status, b"" if status == 304 else found.body, found.content_type, dict(found.headers))
        else:
            await self._rerank(exchange, match, seen)

    async def _admitted(
        self, exchange: Exchange, seen: Seen, work: Callable[[bytes, float], Coroutine[Any, Any, T]]
    ) -> T:
        """Read the body and work on it, with the seconds that the request may take, while its client waits."""
        limits.check_headers(exchange.headers, self.settings)
        allowed = limits.time_allowed(exchange.headers, self.settings)
        if self._running >= self.settings.max_running_requests:
            raise RequestError(
                Kind.OVERLOADED, f"{self._running} requests are being worked on; try again soon.", retry_after=1
            )
        self._running += 1
        self.metrics.started()
        try:
            async with asyncio.timeout(allowed):
                body = await exchange.read(self.settings)
                seen.seconds["read"] = exchange.seconds
                return await exchange.unless_gone(work(body, allowed))
        except TimeoutError as error:
            raise RequestError(Kind.DEADLINE, f"There was no result within {allowed:g} seconds.") from error
        finally:
            self._running -= 1
            self.metrics.ended()

    async def _rerank(self, exchange: Exchange, match: Match, seen: Seen) -> None:
        job, scored = await self._admitted(exchange, seen, partial(self._work, exchange, match, seen))
        before = exchange.seconds
        result = finish(job.request, job.model, job.prepared, scored, exchange.request_id, before)
        value = seen.dialect.render(job.body, job.request, result)
        in_msgpack = seen.dialect.msgpack and msgpack.wants_msgpack(exchange.text(b"accept"))
        answer = msgpack.dumps(value) if in_msgpack else orjson.dumps(value)
        seen.seconds["render"] = exchange.seconds - before
        self.metrics.scored(job.model.name, job.prepared, scored)
        headers = self._names(seen) | {"x-cached-pairs": str(scored.cached), "server-timing": _timing(seen)}
        await exchange.answer(200, answer, msgpack.CONTENT_TYPE if in_msgpack else JSON, headers)

    async def _search(self, exchange: Exchange, path: str, seen: Seen) -> None:
        retriever = there(self.retriever)
        stages = TWO_STAGES[path]
        seen.spoken = stages.name

        async def work(body: bytes, allowed: float) -> bytes:
            loop = asyncio.get_running_loop()
            value = await loop.run_in_executor(self._threads, strict_json.parse, body)
            around = Around(retriever, partial(self._reranker, exchange, seen, allowed), self.settings)
            start = exchange.seconds
            answer = await stages.run(value, around, exchange.request_id)
            reranking = seen.seconds.get("prepare", 0.0) + seen.seconds.get("score", 0.0)
            seen.seconds["retrieve"] = exchange.seconds - start - reranking
            start = exchange.seconds
            rendered = await loop.run_in_executor(self._threads, answer.model_dump_json)
            seen.seconds["render"] = exchange.seconds - start
            return rendered.encode()

        answer = await self._admitted(exchange, seen, work)
        await exchange.answer(200, answer, JSON, self._names(seen) | {"server-timing": _timing(seen)})

    def _reranker(self, exchange: Exchange, seen: Seen, allowed: float, name: str | None) -> Rerank:
        model = find_model(self._models, name)
        seen.model = model.name

        async def rerank(query: str, documents: Sequence[str]) -> Reranked:
            if not documents:
                nothing = np.zeros(0, np.float32)
                return Reranked(nothing, nothing, nothing.astype(np.bool_), name or model.name, model.revision)
            request = RerankRequest(queries=(query,), documents=tuple(documents), model=name)
            start = exchange.seconds
            prepared = await asyncio.get_running_loop().run_in_executor(
                self._threads, prepare, request, model, self._encoders, self.settings
            )
            seen.add("prepare", exchange.seconds - start)
            start = exchange.seconds
            scored = await self.backend.score(model.name, prepared.pairs, max(0.0, allowed - start))
            seen.add("score", exchange.seconds - start)
            result = finish(request, model, prepared, scored, exchange.request_id, exchange.seconds)
            seen.documents += len(documents)
            seen.tokens += prepared.tokens
            self.metrics.scored(model.name, prepared, scored)
            return Reranked(result.logits, result.scores, result.truncated, result.model, result.revision)

        return rerank

    async def _work(
        self, exchange: Exchange, match: Match, seen: Seen, body: bytes, allowed: float
    ) -> tuple[_Job, Scored]:
        start = exchange.seconds
        job = await asyncio.get_running_loop().run_in_executor(
            self._threads, self._prepare, body, exchange.text(b"content-type"), match, seen
        )
        seen.seconds["prepare"] = exchange.seconds - start
        start = exchange.seconds
        scored = await self.backend.score(job.model.name, job.prepared.pairs, max(0.0, allowed - start))
        seen.seconds["score"] = exchange.seconds - start
        return job, scored

    def _prepare(self, body: bytes, content_type: str, match: Match, seen: Seen) -> _Job:
        """All that takes the processor: parse, check, tokenise."""
        if seen.dialect.msgpack and msgpack.is_msgpack(content_type):
            value = msgpack.loads(body)
            strict_json.refuse_deep(value)
        else:
            value = strict_json.parse(body)
        seen.dialect = choose(match.template, value)
        seen.spoken = seen.dialect.name
        request = seen.dialect.parse(value, match.parameters)
        model = find_model(self._models, request.model)
        seen.model = model.name
        seen.documents = len(request.documents)
        prepared = prepare(request, model, self._encoders, self.settings)
        seen.tokens = prepared.tokens
        return _Job(value, request, model, prepared)

    async def _refuse(self, exchange: Exchange, seen: Seen, error: RequestError) -> None:
        seen.reason = error.kind.name
        if exchange.status is not None:
            return  # the answer was on its way already
        status, body = seen.dialect.render_error(error)
        headers = self._names(seen)
        if error.kind in _RETRYABLE:
            headers["retry-after"] = str(max(1, math.ceil(error.retry_after or 1)))
        elif error.kind is Kind.UNAUTHORIZED:
            headers["www-authenticate"] = "Bearer"
        elif error.kind is Kind.METHOD and (match := self._routes.find("", exchange.path)):
            headers["allow"] = ", ".join(match.methods)
        await exchange.answer(status, orjson.dumps(body), JSON, headers)

    def _names(self, seen: Seen) -> dict[str, str]:
        """Headers that say which model it was, once that is known."""
        if seen.model is None:
            return {}
        return {"x-model": seen.model, "x-model-revision": self._models[seen.model].revision}

    async def _alive(self, _: Mapping[str, str]) -> _Page:
        return _Page(b'{"status":"alive"}')

    async def _ready(self, _: Mapping[str, str]) -> _Page:
        if await self._readiness.check():
            return _Page(b'{"status":"ready"}')
        return _Page(b'{"status":"not ready"}', 503)

    async def _info(self, _: Mapping[str, str]) -> _Page:
        return _Page(orjson.dumps(pages.info(find_model(self._models, None), self.settings)))

    async def _list_models(self, _: Mapping[str, str]) -> _Page:
        return _Page(orjson.dumps(pages.model_list(list(self._models.values()))))

    async def _show_model(self, parameters: Mapping[str, str]) -> _Page:
        name = parameters["model"]
        return _Page(orjson.dumps(pages.one_model(name, find_model(self._models, name))))

    async def _cluster(self, _: Mapping[str, str]) -> _Page:
        return _Page(orjson.dumps(ClusterAuth().model_dump()))

    async def _read_metrics(self, _: Mapping[str, str]) -> _Page:
        names = list(self._models)
        numbers = await asyncio.gather(*map(self.backend.numbers, names))
        return _Page(self.metrics.text(dict(zip(names, numbers, strict=True))), content_type=CONTENT_TYPE)

    async def _send_file(self, file: page.PageFile, _: Mapping[str, str]) -> _Page:
        return _Page(file.body, content_type=file.content_type, headers=file.headers)

    async def _describe(self, _: Mapping[str, str]) -> _Page:
        return _Page(self._description)


def _timing(seen: Seen) -> str:
    """The value of the header Server-Timing."""
    return ", ".join(f"{name};dur={1000 * took:.2f}" for name, took in seen.seconds.items())
